//! The folder of compiled code. An entry is run when it is read back, so nothing may be believed of it.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use gristmill::plugin::{Cache, Digest, Plugin};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::guests::{Calling, bytes, engine, private_folder};

/// Bytes at the start of an entry, before the code.
pub const CHECKSUM: usize = 32;

/// A folder with one entry: the code of the guest `digest-a`, which writes "a".
struct Fixture {
    _parent: TempDir,
    folder: PathBuf,
    cache: Cache,
    entry: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = private_folder(parent.path());
        let cache = Cache::open(&folder).unwrap();
        Plugin::load(engine(), Some(&cache), "version", &bytes("digest-a")).unwrap();
        let [entry] = entries(&folder).try_into().unwrap();
        Self { _parent: parent, folder, cache, entry }
    }

    fn with_b() -> (Self, PathBuf) {
        let fixture = Self::new();
        Plugin::load(engine(), Some(&fixture.cache), "version", &bytes("digest-b")).unwrap();
        let b = entries(&fixture.folder).into_iter().find(|path| *path != fixture.entry).unwrap();
        (fixture, b)
    }

    /// Which version runs when the file of `digest-a` is loaded.
    async fn runs(&self) -> String {
        let plugin = Plugin::load(engine(), Some(&self.cache), "version", &bytes("digest-a")).unwrap();
        Calling::new("cat.jpg", "").run(&plugin).await.text().to_owned()
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn code_is_taken_from_the_cache() {
    let (fixture, b) = Fixture::with_b();
    // The only way to tell from outside: an entry that is right in every respect but holds other code.
    let code = fs::read(b).unwrap().split_off(CHECKSUM);
    let digest = Digest::of(&bytes("digest-a"));
    let checksum = Sha256::new().chain_update(digest.to_string()).chain_update(&code).finalize();
    fs::write(&fixture.entry, [checksum.as_slice(), &code].concat()).unwrap();
    assert_eq!(fixture.runs().await, "b");
}

#[tokio::test]
async fn an_entry_of_another_file_is_not_run() {
    let (fixture, b) = Fixture::with_b();
    fs::copy(&b, &fixture.entry).unwrap();
    assert_eq!(fixture.runs().await, "a");
    assert_ne!(fs::read(&fixture.entry).unwrap(), fs::read(&b).unwrap(), "the entry was replaced");
}

#[tokio::test]
async fn a_damaged_entry_is_compiled_again_and_replaced() {
    let fixture = Fixture::new();
    let whole = fs::read(&fixture.entry).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let text = b"not code".to_vec();
    let cuts = [0, 1, 31, 32, 33, whole.len() / 2, whole.len() - 1].map(|cut| whole[..cut].to_vec());
    for damaged in cuts.into_iter().chain([flipped, text]) {
        fs::write(&fixture.entry, &damaged).unwrap();
        assert_eq!(fixture.runs().await, "a");
        let replaced = fs::read(&fixture.entry).unwrap();
        assert_eq!(replaced.len(), whole.len(), "{} bytes of it were damaged", damaged.len());
    }
    assert_eq!(entries(&fixture.folder), [fixture.entry], "nothing else is left there");
}

#[tokio::test]
async fn an_entry_that_is_a_link_is_not_followed() {
    let fixture = Fixture::new();
    let elsewhere = fixture.folder.with_file_name("elsewhere");
    fs::rename(&fixture.entry, &elsewhere).unwrap();
    symlink(&elsewhere, &fixture.entry).unwrap();
    assert_eq!(fixture.runs().await, "a");
    assert!(fixture.entry.symlink_metadata().unwrap().is_file(), "the link was replaced");
}

#[test]
fn entries_are_private_and_bounded_in_number() {
    const MOST: usize = 128;
    let fixture = Fixture::new();
    assert_eq!(fixture.entry.metadata().unwrap().mode() & 0o777, 0o600);
    for number in 0..2 * MOST {
        let old = fixture.folder.join(format!("old-{number}"));
        fs::File::create(old).unwrap().set_modified(SystemTime::now() - Duration::from_secs(1_000)).unwrap();
    }
    Plugin::load(engine(), Some(&fixture.cache), "nothing", &bytes("nothing")).unwrap();
    let left = entries(&fixture.folder);
    assert_eq!(left.len(), MOST);
    assert!(left.contains(&fixture.entry), "the oldest go first");
}

#[test]
fn many_may_fill_the_cache_at_once() {
    let fixture = Fixture::new();
    fs::remove_file(&fixture.entry).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| Plugin::load(engine(), Some(&fixture.cache), "version", &bytes("digest-a")).unwrap());
        }
    });
    assert_eq!(entries(&fixture.folder), [fixture.entry]);
}

#[test]
fn a_folder_that_is_not_private_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let folder = private_folder(parent.path());
    let refusal = |path: &Path| {
        let error = Cache::open(path).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        error.to_string()
    };
    for mode in [0o755, 0o710, 0o701, 0o770] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        assert!(refusal(&folder).contains("is open to other users (make it mode 0700)"), "{mode:o}");
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(Cache::open(&folder).is_ok());

    let link = parent.path().join("link");
    symlink(&folder, &link).unwrap();
    assert!(refusal(&link).contains("is not a folder"));
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(Cache::open(&file).is_err());

    // Only root can give a folder away; everybody else has root's at hand.
    let foreign = if chown(&folder, Some(12_345), None).is_ok() { folder } else { PathBuf::from("/usr") };
    assert!(refusal(&foreign).contains("belongs to another user"));
}

#[test]
fn a_folder_that_is_missing_is_made_private() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a/b/cache");
    Cache::open(&folder).unwrap();
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_cache_that_cannot_be_written_to_is_no_reason_to_fail() {
    let fixture = Fixture::new();
    fs::remove_dir_all(&fixture.folder).unwrap();
    Plugin::load(engine(), Some(&fixture.cache), "version", &bytes("digest-a")).unwrap();
}
