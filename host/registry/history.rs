//! What was decided about plugins and the bytes of their versions, in a folder of the host's own.
//!
//! ```text
//! NAME.json             the record of one plugin
//! versions/DIGEST       the bytes of a version, under the SHA-256 that they are checked against when read
//! versions/DIGEST.sig   its signature, where one was wanted when it was kept
//! lock                  held while a record changes: hosts may share the folder, and people change it by hand
//! ```

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::fs::FlockOperation;

use super::load::check_kept;
use crate::{
    config::{Trust, is_plugin_name},
    plugin::{Compiler, Digest, Engine, Plugin},
    private,
    release::{Kept, Record},
};

/// Bytes of all versions together, unless those in use alone are more: ten versions of five plugins that carry a
/// language runtime.
const MAX_BYTES: u64 = 1 << 30;

/// The largest record: ten times what one with every version has.
const MAX_RECORD: u64 = 32 << 10;

/// The largest signature: twenty times what one of minisign has.
const MAX_SIGNATURE: u64 = 8 << 10;

/// What the file of a version's signature ends with.
const SIGNATURE: &str = "sig";

/// Why the history cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The folder is not private.
    #[error(
        "`{}` {reason}: what is in it decides which code runs, so it must be a folder of this user with mode 0700",
        path.display()
    )]
    NotPrivate {
        /// The folder.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// The system refused.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// A verb.
        doing: &'static str,
        /// What it was to be done to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else wrote it.
    #[error("`{}` cannot be read: {reason}: remove it, and the plugin directory alone decides again", path.display())]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are not those of the version.
    #[error("the bytes kept of version {0} are not its own, the copy is damaged: put it into the plugin directory")]
    Forged(String),
    /// Nothing begins like this.
    #[error("no version of `{plugin}` whose digest begins with `{digest}` is kept; {}", known(.kept))]
    Unknown {
        /// Whose.
        plugin: String,
        /// As asked for.
        digest: String,
        /// What there is.
        kept: Vec<Kept>,
    },
    /// More than one begins like this.
    #[error("several versions of `{plugin}` have a digest that begins with `{digest}`: give more of it")]
    Ambiguous {
        /// Whose.
        plugin: String,
        /// As asked for.
        digest: String,
    },
}

fn known(kept: &[Kept]) -> String {
    match kept {
        [] => "none is".to_owned(),
        kept => {
            let digests: Vec<&str> = kept.iter().rev().map(|kept| crate::plugin::short_digest(&kept.digest)).collect();
            format!("there are {}", digests.join(", "))
        }
    }
}

impl HistoryError {
    fn io<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source: source.into() }
    }
}

/// Records and versions of plugins.
#[derive(Debug, Clone)]
pub struct History {
    folder: PathBuf,
}

impl History {
    /// Opens the folder, and makes it when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, or others could write to it.
    pub fn open(folder: &Path) -> Result<Self, HistoryError> {
        let versions = folder.join("versions");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&versions)
            .map_err(HistoryError::io("make", &versions))?;
        let meta = fs::symlink_metadata(folder).map_err(HistoryError::io("look at", folder))?;
        let refuse =
            |reason: &str| Err(HistoryError::NotPrivate { path: folder.to_owned(), reason: reason.to_owned() });
        if !meta.is_dir() {
            return refuse("is no folder");
        }
        match private::check(&meta) {
            Ok(()) => Ok(Self { folder: folder.to_owned() }),
            Err(reason) => refuse(&reason.to_string()),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was decided about the plugin; nothing when nobody has heard of it.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn record(&self, plugin: &str) -> Result<Record, HistoryError> {
        let path = self.record_path(plugin);
        let text = match read_at_most(&path, MAX_RECORD) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
            Err(error) => return Err(HistoryError::io("read", &path)(error)),
        };
        serde_json::from_slice(&text).map_err(|error| HistoryError::Damaged { path, reason: error.to_string() })
    }

    /// Changes a record, alone among all that share the folder. What comes out as it was is not written.
    ///
    /// # Errors
    /// When the record cannot be read or written; nothing has changed then.
    pub fn update<T>(&self, plugin: &str, change: impl FnOnce(&mut Record) -> T) -> Result<T, HistoryError> {
        let _lock = self.lock()?;
        let before = self.record(plugin)?;
        let mut record = before.clone();
        let value = change(&mut record);
        if record != before {
            self.write(plugin, &record)?;
        }
        Ok(value)
    }

    /// Whether the bytes of a version are kept, whole.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn keeps(&self, plugin: &str, digest: Digest) -> Result<bool, HistoryError> {
        let digest = digest.to_string();
        let is_kept = self.record(plugin)?.kept.iter().any(|kept| kept.digest == digest);
        Ok(is_kept && self.read(&digest).is_ok())
    }

    /// Keeps the bytes of a version, as the newest one, and drops those of the oldest when they are too many.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn keep(
        &self,
        plugin: &str,
        digest: Digest,
        bytes: &[u8],
        signature: Option<&[u8]>,
    ) -> Result<(), HistoryError> {
        let _lock = self.lock()?;
        let (name, path) = (digest.to_string(), self.version_path(&digest.to_string()));
        if self.read(&name).is_err() {
            replace(&path, bytes)?;
        }
        if let Some(signature) = signature {
            replace(&path.with_extension(SIGNATURE), signature)?;
        }
        let mut record = self.record(plugin)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        record.keep(&name, bytes.len() as u64, now.as_secs());
        self.write(plugin, &record)?;
        self.make_room()
    }

    /// The bytes of a version.
    ///
    /// # Errors
    /// When they are not kept, or are not the version's.
    pub fn read(&self, digest: &str) -> Result<Vec<u8>, HistoryError> {
        let path = self.version_path(digest);
        let bytes = read_at_most(&path, super::file::MAX_PLUGIN_BYTES).map_err(HistoryError::io("read", &path))?;
        match Digest::of(&bytes).to_string() == digest {
            true => Ok(bytes),
            false => Err(HistoryError::Forged(digest.to_owned())),
        }
    }

    /// A version as a plugin that can be called, if the configuration lets it in. Blocks.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn load(
        &self,
        engine: &Arc<Engine>,
        compiler: &Compiler,
        trust: &Trust,
        plugin: &str,
        digest: &str,
    ) -> Result<Plugin, String> {
        let bytes = self.read(digest).map_err(|error| error.to_string())?;
        let signature = self.signature(digest).map_err(|error| error.to_string())?;
        check_kept(plugin, &bytes, signature.as_deref(), trust)?;
        Plugin::load(engine, compiler, plugin, &bytes).map_err(|error| error.to_string())
    }

    /// The signature that was kept with a version.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn signature(&self, digest: &str) -> Result<Option<Vec<u8>>, HistoryError> {
        let path = self.version_path(digest).with_extension(SIGNATURE);
        match read_at_most(&path, MAX_SIGNATURE) {
            Ok(signature) => Ok(Some(signature)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(HistoryError::io("read", &path)(error)),
        }
    }

    /// The one version of the plugin whose digest begins like this.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find(&self, plugin: &str, digest: &str) -> Result<String, HistoryError> {
        let kept = self.record(plugin)?.kept;
        let named = || (plugin.to_owned(), digest.to_owned());
        let mut found = kept.iter().filter(|kept| kept.digest.starts_with(digest));
        match (found.next(), found.next()) {
            (Some(kept), None) => Ok(kept.digest.clone()),
            (Some(_), Some(_)) => {
                let (plugin, digest) = named();
                Err(HistoryError::Ambiguous { plugin, digest })
            }
            (None, _) => {
                let (plugin, digest) = named();
                Err(HistoryError::Unknown { plugin, digest, kept })
            }
        }
    }

    /// Drops the oldest versions that nobody needs while all of them are too large, and the files of those that
    /// no record keeps.
    fn make_room(&self) -> Result<(), HistoryError> {
        let mut records = self.records()?;
        loop {
            let sizes = records.iter().flat_map(|(_, record)| &record.kept).map(|kept| kept.size);
            if sizes.sum::<u64>() <= MAX_BYTES {
                break;
            }
            let oldest = records.iter_mut().filter(|(_, record)| record.oldest().is_some());
            let Some((plugin, record)) = oldest.min_by_key(|(_, record)| record.oldest().map(|kept| kept.since)) else {
                break;
            };
            record.drop_oldest();
            self.write(plugin, record)?;
        }
        let versions = self.folder.join("versions");
        for file in fs::read_dir(&versions).map_err(HistoryError::io("list", &versions))? {
            let file = file.map_err(HistoryError::io("list", &versions))?;
            let is_kept =
                |digest: &str| records.iter().any(|(_, record)| record.kept.iter().any(|kept| kept.digest == digest));
            let name = file.file_name();
            let digest = name.to_str().map(|name| name.strip_suffix(".sig").unwrap_or(name));
            if !digest.is_some_and(is_kept) {
                fs::remove_file(file.path()).map_err(HistoryError::io("remove", &file.path()))?;
            }
        }
        Ok(())
    }

    /// Every plugin with its record, by name.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn records(&self) -> Result<Vec<(String, Record)>, HistoryError> {
        let mut records = Vec::new();
        for file in fs::read_dir(&self.folder).map_err(HistoryError::io("list", &self.folder))? {
            let name = file.map_err(HistoryError::io("list", &self.folder))?.file_name();
            let plugin = name.to_str().and_then(|name| name.strip_suffix(".json"));
            if let Some(plugin) = plugin.filter(|plugin| is_plugin_name(plugin)) {
                records.push((plugin.to_owned(), self.record(plugin)?));
            }
        }
        records.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(records)
    }

    fn write(&self, plugin: &str, record: &Record) -> Result<(), HistoryError> {
        let path = self.record_path(plugin);
        let text = serde_json::to_vec_pretty(record).map_err(io::Error::other);
        replace(&path, &text.map_err(HistoryError::io("write", &path))?)
    }

    /// Blocks while another process changes a record, which takes it some milliseconds.
    fn lock(&self) -> Result<File, HistoryError> {
        let path = self.folder.join("lock");
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(HistoryError::io("open", &path))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(HistoryError::io("lock", &path))?;
        Ok(file)
    }

    fn record_path(&self, plugin: &str) -> PathBuf {
        self.folder.join(format!("{plugin}.json"))
    }

    fn version_path(&self, digest: &str) -> PathBuf {
        self.folder.join("versions").join(digest)
    }
}

/// Writes a file whole and durably, or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), HistoryError> {
    let folder = path.parent().unwrap_or(path);
    let write = || -> io::Result<()> {
        // Of a name of its own, with mode 0600, and gone when it cannot be finished.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(HistoryError::io("write", path))
}

fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    private::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::other(format!("it has more than {most} bytes"))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn history() -> (tempfile::TempDir, History) {
        let folder = tempfile::tempdir().unwrap();
        let history = History::open(&folder.path().join("releases")).unwrap();
        (folder, history)
    }

    fn keep(history: &History, plugin: &str, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes);
        history.keep(plugin, digest, bytes, None).unwrap();
        digest.to_string()
    }

    #[test]
    fn what_is_kept_comes_back() {
        let (_folder, history) = history();
        let (first, second) = (keep(&history, "a", b"first"), keep(&history, "a", b"second"));
        assert_eq!(history.read(&first).unwrap(), b"first");
        assert_eq!(history.find("a", &second[..12]).unwrap(), second);
        let kept: Vec<String> = history.record("a").unwrap().kept.into_iter().map(|kept| kept.digest).collect();
        assert_eq!(kept, [first.clone(), second]);
        let unknown = history.find("a", "zz").unwrap_err().to_string();
        assert!(unknown.contains(&first[..12]) && unknown.contains("begins with `zz`"), "{unknown}");
        assert!(history.find("a", "").unwrap_err().to_string().contains("give more of it"));
        assert!(history.find("b", "").unwrap_err().to_string().contains("none is"));
    }

    #[test]
    fn a_damaged_version_is_not_used_and_can_be_kept_anew() {
        let (_folder, history) = history();
        let digest = keep(&history, "a", b"good");
        fs::write(history.version_path(&digest), b"evil").unwrap();
        assert!(matches!(history.read(&digest), Err(HistoryError::Forged(_))));
        keep(&history, "a", b"good");
        assert_eq!(history.read(&digest).unwrap(), b"good");
    }

    #[test]
    fn old_versions_go_and_those_in_use_stay() {
        let (_folder, history) = history();
        let first = keep(&history, "a", b"the stable one");
        history.update("a", |record| record.directory_holds(Some(&first), None)).unwrap();
        let other = keep(&history, "b", b"the stable one");
        assert_eq!(first, other, "two plugins may share a version");
        let versions: Vec<String> = (0..30_u32).map(|n| keep(&history, "a", &n.to_le_bytes())).collect();
        let files = fs::read_dir(history.folder.join("versions")).unwrap().count();
        assert_eq!(files, crate::release::MAX_VERSIONS);
        assert_eq!(history.read(&first).unwrap(), b"the stable one");
        assert!(history.read(&versions[0]).is_err());
        assert!(history.read(&versions[29]).is_ok());
    }

    #[test]
    fn a_damaged_record_is_named_and_left_alone() {
        let (_folder, history) = history();
        keep(&history, "a", b"1");
        fs::write(history.record_path("a"), "{").unwrap();
        let error = history.update("a", |_| ()).unwrap_err().to_string();
        assert!(error.contains("a.json") && error.contains("remove it"), "{error}");
        assert_eq!(fs::read(history.record_path("a")).unwrap(), b"{");
    }

    #[test]
    fn a_folder_that_others_could_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("releases");
        History::open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        let error = History::open(&path).unwrap_err().to_string();
        assert!(error.contains("is open to other users"), "{error}");
    }

    #[test]
    fn changes_of_several_at_once_all_count() {
        let (_folder, history) = history();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let history = &history;
                scope.spawn(move || {
                    for n in 0..10 {
                        let push = |record: &mut Record| record.stable.push(format!("{thread}-{n}"));
                        history.update("a", push).unwrap();
                    }
                });
            }
        });
        assert_eq!(history.record("a").unwrap().stable.len(), 40);
    }
}
