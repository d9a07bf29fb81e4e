//! Keys as paths below a directory, walked without following symbolic links.
//!
//! A key is resolved segment by segment from a directory that is held open. So neither a symbolic link that
//! somebody planted nor a directory that is renamed meanwhile leads out of it, and a path may be longer than
//! the system allows in one call.

use std::{
    ffi::OsStr,
    fmt,
    ops::ControlFlow,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Stat},
    io::Errno,
};

use super::STATE;

/// A directory held open.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

/// The directory that holds a key's last segment, and that segment.
#[derive(Debug)]
pub struct Place<'a> {
    /// For calls relative to it.
    pub directory: OwnedFd,
    /// What the key is called there.
    pub name: &'a str,
    key: &'a str,
}

/// Why a key could not be resolved.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Obstacle {
    /// One of its directories does not exist.
    #[error("the directory of `{path}` does not exist")]
    Missing {
        /// The directory, or what is below it.
        path: String,
    },
    /// Something else than a directory is in the way.
    #[error("`{path}` is {found}: it has to be a directory, rename or remove it")]
    NotADirectory {
        /// What is in the way.
        path: String,
        /// What it is.
        found: Kind,
    },
    /// The key is no path below a directory.
    #[error("`{key}` cannot be a path in a directory: {why}")]
    BadKey {
        /// The key.
        key: String,
        /// For people.
        why: &'static str,
    },
    /// The system refused.
    #[error("cannot {doing} `{path}`: {reason}")]
    Refused {
        /// A verb.
        doing: &'static str,
        /// What it was to be done to.
        path: String,
        /// Why.
        reason: Errno,
    },
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    SymbolicLink,
    /// A pipe, a socket or a device.
    Special,
}

impl Kind {
    /// Of what was asked about.
    pub fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::SymbolicLink,
            _ => Self::Special,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a file",
            Self::Directory => "a directory",
            Self::SymbolicLink => "a symbolic link, which is not followed",
            Self::Special => "a special file (pipe, socket or device)",
        })
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Tree {
    /// Opens the directory, following links in the path to it.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        let root = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// The directory, for calls relative to it.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The key's path, for people.
    pub fn display(&self, key: &str) -> String {
        self.path.join(key).display().to_string()
    }

    /// Where a key is, in directories that exist.
    pub fn place<'a>(&self, key: &'a str) -> Result<Place<'a>, Obstacle> {
        let (parents, name) = split(key)?;
        Ok(Place { directory: self.walk(parents, false)?, name, key })
    }

    /// Where a key is; directories that are missing are made, durably.
    pub fn place_or_create<'a>(&self, key: &'a str) -> Result<Place<'a>, Obstacle> {
        let (parents, name) = split(key)?;
        Ok(Place { directory: self.walk(parents, true)?, name, key })
    }

    /// What is at the key, itself not followed either; nothing when its directory is missing.
    pub fn look(&self, key: &str) -> Result<Option<Stat>, Obstacle> {
        match self.place(key) {
            Ok(place) => self.stat(&place),
            // Below a file there is nothing, as below a missing directory.
            Err(Obstacle::Missing { .. } | Obstacle::NotADirectory { found: Kind::File, .. }) => Ok(None),
            Err(obstacle) => Err(obstacle),
        }
    }

    /// What is at the place.
    pub fn stat(&self, place: &Place<'_>) -> Result<Option<Stat>, Obstacle> {
        match rustix::fs::statat(&place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            // A name that no file can have is one that no file has.
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
            Err(reason) => Err(self.refused("look at", place.key, reason)),
        }
    }

    /// Opens what is at the place for reading. The caller checks that it is the file it means; this never
    /// follows a link and never waits for the other end of a pipe.
    pub fn open_file(&self, place: &Place<'_>) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat(&place.directory, place.name, flags, Mode::empty())
    }

    /// Shows `each` name in the directory `key` (empty for the root) with what it leads to, until it breaks.
    /// Names that vanish meanwhile are left out.
    pub fn list(&self, key: &str, mut each: impl FnMut(&OsStr, &Stat) -> ControlFlow<()>) -> Result<(), Obstacle> {
        let directory = self.walk(key.split('/').filter(|segment| !segment.is_empty()), false)?;
        let refused = |reason| self.refused("list", key, reason);
        for entry in Dir::read_from(&directory).map_err(refused)? {
            let entry = entry.map_err(refused)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    if each(name, &stat).is_break() {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                Err(reason) => return Err(refused(reason)),
            }
        }
        Ok(())
    }

    /// The system refused to do something to the key.
    pub fn refused(&self, doing: &'static str, key: &str, reason: Errno) -> Obstacle {
        Obstacle::Refused { doing, path: self.display(key), reason }
    }

    fn walk<'a>(&self, parents: impl Iterator<Item = &'a str>, create: bool) -> Result<OwnedFd, Obstacle> {
        let mut walked = String::new();
        let mut directory = self.enter(self.root.as_fd(), ".", &walked)?;
        for segment in parents {
            if !walked.is_empty() {
                walked.push('/');
            }
            walked.push_str(segment);
            directory = match self.enter(directory.as_fd(), segment, &walked) {
                Err(Obstacle::Missing { .. }) if create => {
                    self.make(directory.as_fd(), segment, &walked)?;
                    self.enter(directory.as_fd(), segment, &walked)?
                }
                other => other?,
            };
        }
        Ok(directory)
    }

    fn enter(&self, from: BorrowedFd<'_>, segment: &str, walked: &str) -> Result<OwnedFd, Obstacle> {
        match rustix::fs::openat(from, segment, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(directory) => Ok(directory),
            Err(Errno::NOENT) => Err(Obstacle::Missing { path: self.display(walked) }),
            Err(reason @ (Errno::NOTDIR | Errno::LOOP)) => {
                match rustix::fs::statat(from, segment, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => Err(Obstacle::NotADirectory { path: self.display(walked), found: Kind::of(&stat) }),
                    Err(_) => Err(self.refused("enter", walked, reason)),
                }
            }
            Err(reason) => Err(self.refused("enter", walked, reason)),
        }
    }

    fn make(&self, parent: BorrowedFd<'_>, segment: &str, walked: &str) -> Result<(), Obstacle> {
        match rustix::fs::mkdirat(parent, segment, Mode::from_raw_mode(0o777)) {
            // Somebody else was quicker, which is as good.
            Ok(()) | Err(Errno::EXIST) => {
                sync(parent).map_err(|reason| self.refused("write through to disk", walked, reason))
            }
            Err(reason) => Err(self.refused("create", walked, reason)),
        }
    }
}

/// A key's segments before the last, and the last.
fn split(key: &str) -> Result<(impl Iterator<Item = &str>, &str), Obstacle> {
    let bad = |why| Err(Obstacle::BadKey { key: key.to_owned(), why });
    for segment in key.split('/') {
        match segment {
            "" => return bad("a segment is empty"),
            "." | ".." => return bad("`.` and `..` have a meaning of their own there"),
            _ if segment.contains('\0') => return bad("it contains a zero byte"),
            _ => {}
        }
    }
    if key.split('/').next() == Some(STATE) {
        return bad("that directory is the host's own");
    }
    let (parents, name) = key.rsplit_once('/').unwrap_or(("", key));
    Ok((parents.split('/').filter(|segment| !segment.is_empty()), name))
}

/// Writes a file or a directory's entries through to disk.
pub fn sync(file: impl AsFd) -> Result<(), Errno> {
    match rustix::fs::fsync(file) {
        // What some file systems say of directories, which they keep safe in their own way.
        Err(Errno::INVAL) => Ok(()),
        outcome => outcome,
    }
}

/// Renames unless something has the new name already, which is [`Errno::EXIST`]. On a file system that
/// cannot do both in one step (some network and shared-folder ones) it looks first.
pub fn rename_to_free(from: (impl AsFd + Copy, &str), to: (impl AsFd + Copy, &str)) -> Result<(), Errno> {
    static SAID: AtomicBool = AtomicBool::new(false);
    match rustix::fs::renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            if !SAID.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "this file system cannot rename without replacing, so names are looked at first: let nobody else \
                     write below the destination while gristmill runs"
                );
            }
            match rustix::fs::statat(to.0, to.1, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => rustix::fs::renameat(from.0, from.1, to.0, to.1),
                Err(reason) => Err(reason),
            }
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        (folder, tree)
    }

    #[test]
    fn keys_that_are_no_paths_are_refused() {
        let (_folder, tree) = tree();
        for key in ["", "/a", "a/", "a//b", "a/../b", ".", "..", "./a", "a\0b", ".gristmill/lock", ".gristmill"] {
            assert!(matches!(tree.place_or_create(key), Err(Obstacle::BadKey { .. })), "{key:?}");
        }
    }

    #[test]
    fn links_are_not_followed_anywhere() {
        let (folder, tree) = tree();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("out")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), folder.path().join("link")).unwrap();

        let Err(Obstacle::NotADirectory { found: Kind::SymbolicLink, .. }) = tree.place("out/secret") else { panic!() };
        let Err(Obstacle::NotADirectory { found: Kind::SymbolicLink, .. }) = tree.place_or_create("out/a/b") else {
            panic!()
        };
        assert_eq!(Kind::of(&tree.look("link").unwrap().unwrap()), Kind::SymbolicLink);
        assert_eq!(tree.open_file(&tree.place("link").unwrap()).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn paths_beyond_the_systems_limit_work() {
        let (_folder, tree) = tree();
        let key = format!("{}end", format!("{}/", "ü".repeat(100)).repeat(40));
        assert!(key.len() > 4096);
        let place = tree.place_or_create(&key).unwrap();
        rustix::fs::openat(&place.directory, place.name, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        assert_eq!(Kind::of(&tree.look(&key).unwrap().unwrap()), Kind::File);
    }

    #[test]
    fn below_a_file_there_is_nothing() {
        let (folder, tree) = tree();
        std::fs::write(folder.path().join("a"), "x").unwrap();
        assert!(tree.look("a/b").unwrap().is_none());
        assert!(tree.look("b/c").unwrap().is_none());
        assert!(matches!(tree.place_or_create("a/b"), Err(Obstacle::NotADirectory { found: Kind::File, .. })));
    }

    #[test]
    fn a_name_that_is_taken_is_not_replaced() {
        let (folder, tree) = tree();
        std::fs::write(folder.path().join("a"), "a").unwrap();
        std::fs::write(folder.path().join("b"), "b").unwrap();
        assert_eq!(rename_to_free((tree.root(), "a"), (tree.root(), "b")), Err(Errno::EXIST));
        assert_eq!(std::fs::read(folder.path().join("b")).unwrap(), b"b");
        rename_to_free((tree.root(), "a"), (tree.root(), "c")).unwrap();
    }
}
