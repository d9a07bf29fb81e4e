//! The move of an original, which survives a crash between any two of its steps.
//!
//! A plain rename could take a newer upload along that replaced the pinned file a moment before. So the file
//! is first renamed into the host's own directory, where nobody else writes, looked at there, and only then
//! renamed to its destination. A file that a crash leaves in between is put back at the next start, under
//! the key that its path there spells; its message is still in the queue.

use std::{
    ffi::OsStr,
    ops::ControlFlow,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{fs::AtFlags, io::Errno};

use super::Shared;
use crate::{
    directory::{Identity, Kind, Obstacle, Place, rename_to_free, sync},
    store::{Expect, StoreError},
};

/// What became of a file that was put back.
enum PutBack {
    Back,
    /// Something newer was at its key: as in S3, it overwrote this one.
    Overwritten,
}

impl Shared {
    /// Moves the file `pinned` from `key` to `to`. Blocks.
    pub(super) fn relocate(&self, key: &str, pinned: &Identity, to: &str, expect: &Expect) -> Result<(), StoreError> {
        let source = match self.tree.place(key) {
            Err(Obstacle::Missing { .. }) => return Err(self.gone(key)),
            place => place?,
        };
        let transit = self.moving.place_or_create(key)?;
        let destination = self.tree.place_or_create(to)?;

        match rename_to_free((&source.directory, source.name), (&transit.directory, transit.name)) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Err(self.gone(key)),
            Err(Errno::EXIST) => return Err(self.on_the_way(key)),
            Err(reason) => return Err(self.refused("move", key, reason)),
        }
        let found = self.moving.stat(&transit)?;
        if found.is_none_or(|stat| Kind::of(&stat) != Kind::File || Identity::of(&stat) != *pinned) {
            self.put_back(&transit, key)?;
            return Err(StoreError::Superseded);
        }
        if let Err(error) = self.place_at((transit.directory.as_fd(), transit.name), &destination, to, expect) {
            return match self.put_back(&transit, key)? {
                PutBack::Back => Err(error),
                PutBack::Overwritten => Err(StoreError::Superseded),
            };
        }
        self.durable(&destination, to)?;
        self.durable(&source, key)
    }

    /// Renames into a place if `expect` holds there.
    pub(super) fn place_at(
        &self,
        from: (BorrowedFd<'_>, &str),
        to: &Place<'_>,
        key: &str,
        expect: &Expect,
    ) -> Result<(), StoreError> {
        match expect {
            Expect::Absent => match rename_to_free(from, (to.directory.as_fd(), to.name)) {
                Ok(()) => Ok(()),
                Err(Errno::EXIST) => Err(self.taken(to, key)?),
                Err(reason) => Err(self.refused("write", key, reason)),
            },
            Expect::Etag(etag) => {
                // The only gap: a stranger's write between the look and the rename is lost, as if it had
                // come before both.
                let there = match self.tree.stat(to)? {
                    Some(stat) if Identity::of(&stat).to_string() == *etag => Identity::of(&stat),
                    _ => return Err(self.taken(to, key)?),
                };
                let ours = rustix::fs::statat(from.0, from.1, AtFlags::SYMLINK_NOFOLLOW);
                let same_file = ours.is_ok_and(|ours| Identity::of(&ours) == there);
                let moved = if same_file {
                    // Two names of one file are left alone by a rename: this one has to go all the same.
                    rustix::fs::unlinkat(from.0, from.1, AtFlags::empty())
                } else {
                    rustix::fs::renameat(from.0, from.1, &to.directory, to.name)
                };
                moved.map_err(|reason| self.refused("write", key, reason))
            }
        }
    }

    /// Makes a rename into or out of the place durable.
    pub(super) fn durable(&self, place: &Place<'_>, key: &str) -> Result<(), StoreError> {
        sync(&place.directory).map_err(|reason| self.refused("write through to disk the directory of", key, reason))
    }

    fn taken(&self, place: &Place<'_>, key: &str) -> Result<StoreError, StoreError> {
        Ok(match self.tree.stat(place)? {
            Some(stat) if Kind::of(&stat) == Kind::Directory => StoreError::Impossible(format!(
                "`{}` is a directory, so no file can have this name: rename or remove it",
                self.tree.display(key)
            )),
            _ => StoreError::Exists(key.to_owned()),
        })
    }

    fn put_back(&self, transit: &Place<'_>, key: &str) -> Result<PutBack, StoreError> {
        let refused = |reason| {
            StoreError::Unavailable(format!(
                "cannot put `{key}` back in its place ({reason}): it is kept at `{}`, and the next start tries again",
                self.moving.display(key)
            ))
        };
        let back = self.tree.place_or_create(key).map_err(|obstacle| refused(obstacle.to_string()))?;
        match rename_to_free((&transit.directory, transit.name), (&back.directory, back.name)) {
            Ok(()) => self.durable(&back, key).map(|()| PutBack::Back),
            Err(Errno::EXIST) => match self.tree.stat(&back)? {
                Some(stat) if Kind::of(&stat) != Kind::File => Err(refused(format!("{} is there", Kind::of(&stat)))),
                // A newer upload: as in S3, it overwrote this one.
                _ => rustix::fs::unlinkat(&transit.directory, transit.name, AtFlags::empty())
                    .map(|()| PutBack::Overwritten)
                    .map_err(|reason| refused(reason.to_string())),
            },
            Err(reason) => Err(refused(reason.to_string())),
        }
    }

    /// What to say of a source that is not there: another delivery of its message may just be moving it.
    pub(super) fn gone(&self, key: &str) -> StoreError {
        match self.moving.look(key) {
            Ok(Some(stat)) if Kind::of(&stat) == Kind::File => self.on_the_way(key),
            _ => StoreError::NotFound(key.to_owned()),
        }
    }

    /// What to say of a pinned source that is not there.
    pub(super) fn superseded(&self, key: &str) -> StoreError {
        match self.gone(key) {
            StoreError::NotFound(_) => StoreError::Superseded,
            on_the_way => on_the_way,
        }
    }

    fn on_the_way(&self, key: &str) -> StoreError {
        StoreError::Unavailable(format!("`{key}` is just being moved (`{}`)", self.moving.display(key)))
    }

    /// Puts back what a crash left on its way. Blocks. To be called while no move can be under way.
    pub(super) fn recover(&self) -> Result<usize, StoreError> {
        let mut put_back = 0;
        // Depth first, so that every directory is empty when its turn comes again.
        let mut directories = vec![(String::new(), false)];
        while let Some((directory, done)) = directories.pop() {
            if done {
                let place = self.moving.place(&directory)?;
                match rustix::fs::unlinkat(&place.directory, place.name, AtFlags::REMOVEDIR) {
                    // Not empty: something in it could not be put back, which was said.
                    Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => continue,
                    Err(reason) => return Err(self.moving.refused("remove", &directory, reason).into()),
                }
            }
            let mut files = Vec::new();
            let mut inner = Vec::new();
            self.moving.list(&directory, |name, stat| {
                match key_below(&directory, name) {
                    Some(key) if Kind::of(stat) == Kind::Directory => inner.push((key, false)),
                    Some(key) => files.push(key),
                    None => tracing::warn!(?name, directory, "left alone: the host did not put it there"),
                }
                ControlFlow::Continue(())
            })?;
            if !directory.is_empty() {
                directories.push((directory, true));
            }
            directories.append(&mut inner);

            for key in files {
                let transit = self.moving.place(&key)?;
                match self.put_back(&transit, &key) {
                    Ok(PutBack::Back) => put_back += 1,
                    Ok(PutBack::Overwritten) => {
                        tracing::info!(key, "a newer upload had taken the place of a file that was moved")
                    }
                    Err(error) => tracing::error!(key, %error, "cannot put a file back that was on its way"),
                }
            }
        }
        Ok(put_back)
    }
}

fn key_below(directory: &str, name: &OsStr) -> Option<String> {
    let name = name.to_str()?;
    Some(if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") })
}
