//! The folder of compiled code. An entry is run when it is read back, so nothing may be believed of it.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use gristmill::plugin::{Cache, Compiler, Plugin};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::guests::{Calling, bytes, engine, private_folder};

/// Bytes at the start of an entry, before the code.
pub const MAC: usize = 32;

/// A folder with one entry: the code of the guest `digest-a`, which writes "a".
struct Fixture {
    _parent: TempDir,
    folder: PathBuf,
    key: PathBuf,
    entry: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = private_folder(parent.path());
        let key = parent.path().join("state/cache.key");
        load(&folder, &key, "digest-a");
        let [entry] = entries(&folder).try_into().unwrap();
        Self { _parent: parent, folder, key, entry }
    }

    fn with_b() -> (Self, PathBuf) {
        let fixture = Self::new();
        load(&fixture.folder, &fixture.key, "digest-b");
        let b = entries(&fixture.folder).into_iter().find(|path| *path != fixture.entry).unwrap();
        (fixture, b)
    }

    /// Which version runs when the file of `digest-a` is loaded.
    async fn runs(&self) -> String {
        let plugin = load(&self.folder, &self.key, "digest-a");
        Calling::new("cat.jpg", "").run(&plugin).await.text().to_owned()
    }

    /// The MAC that an entry of this name and code has.
    fn mac(&self, entry: &Path, code: &[u8]) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&fs::read(&self.key).unwrap()).unwrap();
        mac.update(entry.file_name().unwrap().as_encoded_bytes());
        mac.update(code);
        mac.finalize().into_bytes().to_vec()
    }
}

/// Loads a guest as a host with this cache does at its start.
fn load(folder: &Path, key: &Path, guest: &str) -> Plugin {
    let cache = Cache::open(folder, key).unwrap();
    Plugin::load(engine(), &Compiler::in_process().with_cache(Some(cache)), "version", &bytes(guest)).unwrap()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn code_is_taken_from_the_cache() {
    let (fixture, b) = Fixture::with_b();
    // The only way to tell from outside: an entry that is right in every respect but holds other code.
    let code = fs::read(b).unwrap().split_off(MAC);
    fs::write(&fixture.entry, [fixture.mac(&fixture.entry, &code), code].concat()).unwrap();
    assert_eq!(fixture.runs().await, "b");
}

#[tokio::test]
async fn an_entry_that_was_made_without_the_key_is_not_run() {
    let (fixture, b) = Fixture::with_b();
    let code = fs::read(b).unwrap().split_off(MAC);
    let name = fixture.entry.file_name().unwrap().as_encoded_bytes();
    let of_no_key = Sha256::new().chain_update(name).chain_update(&code).finalize().to_vec();
    let of_zeros = Hmac::<Sha256>::new_from_slice(&[0; 64]).unwrap().chain_update(name).chain_update(&code);
    for forged in [of_no_key, of_zeros.finalize().into_bytes().to_vec(), vec![0; MAC]] {
        fs::write(&fixture.entry, [forged, code.clone()].concat()).unwrap();
        assert_eq!(fixture.runs().await, "a");
        let replaced = fs::read(&fixture.entry).unwrap();
        assert_eq!(replaced[..MAC], fixture.mac(&fixture.entry, &replaced[MAC..]), "it was compiled again");
    }
}

#[tokio::test]
async fn a_new_key_makes_every_entry_a_foreign_one() {
    let fixture = Fixture::new();
    let before = fs::read(&fixture.entry).unwrap();
    fs::remove_file(&fixture.key).unwrap();
    assert_eq!(fixture.runs().await, "a");
    let after = fs::read(&fixture.entry).unwrap();
    assert_ne!(before[..MAC], after[..MAC]);
    // And stays that way.
    assert_eq!(fixture.runs().await, "a");
    assert_eq!(fs::read(&fixture.entry).unwrap(), after);
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

/// Entries of other plugins, the first of them the oldest.
fn fill(folder: &Path, number: usize, bytes: u64) {
    for number in 0..number {
        let old = fs::File::create(folder.join(format!("old-{number}"))).unwrap();
        old.set_len(bytes).unwrap();
        old.set_modified(SystemTime::now() - Duration::from_secs(10_000 - number as u64)).unwrap();
    }
}

#[test]
fn entries_are_private_and_bounded_in_number() {
    const MOST: usize = 128;
    let fixture = Fixture::new();
    assert_eq!(fixture.entry.metadata().unwrap().mode() & 0o777, 0o600);
    fill(&fixture.folder, 2 * MOST, 0);
    load(&fixture.folder, &fixture.key, "nothing");
    let left = entries(&fixture.folder);
    assert_eq!(left.len(), MOST);
    assert!(left.contains(&fixture.entry), "the oldest go first");
}

#[test]
fn entries_are_bounded_in_bytes() {
    let fixture = Fixture::new();
    fill(&fixture.folder, 5, 300 << 20);
    load(&fixture.folder, &fixture.key, "nothing");
    let left: Vec<_> =
        entries(&fixture.folder).into_iter().filter(|path| path.to_str().unwrap().contains("old-")).collect();
    let total: u64 = entries(&fixture.folder).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(total <= 1 << 30, "{total}");
    assert_eq!(left.len(), 3, "no more than needed: {left:?}");
    assert!(left.iter().all(|path| !path.ends_with("old-0") && !path.ends_with("old-1")), "{left:?}");
}

#[test]
fn what_is_used_stays() {
    let fixture = Fixture::new();
    let long_ago = SystemTime::now() - Duration::from_secs(20_000);
    fs::File::open(&fixture.entry).unwrap().set_modified(long_ago).unwrap();
    load(&fixture.folder, &fixture.key, "digest-a");
    fill(&fixture.folder, 200, 0);
    load(&fixture.folder, &fixture.key, "nothing");
    assert!(fixture.entry.exists());
}

#[test]
fn many_may_fill_the_cache_at_once() {
    let fixture = Fixture::new();
    fs::remove_file(&fixture.entry).unwrap();
    fs::remove_file(&fixture.key).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| load(&fixture.folder, &fixture.key, "digest-a"));
        }
    });
    assert_eq!(entries(&fixture.folder), std::slice::from_ref(&fixture.entry));
    let entry = fs::read(&fixture.entry).unwrap();
    assert_eq!(entry[..MAC], fixture.mac(&fixture.entry, &entry[MAC..]), "all of them have the same key");
}

#[test]
fn a_folder_that_is_not_private_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let folder = private_folder(parent.path());
    let key = parent.path().join("cache.key");
    let refusal = |path: &Path| {
        let error = Cache::open(path, &key).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        error.to_string()
    };
    for mode in [0o755, 0o710, 0o701, 0o770] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        assert!(refusal(&folder).contains("is open to other users (make it mode 0700)"), "{mode:o}");
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(Cache::open(&folder, &key).is_ok());

    let link = parent.path().join("link");
    symlink(&folder, &link).unwrap();
    assert!(refusal(&link).contains("is not a folder"));
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(Cache::open(&file, &key).is_err());

    // Only root can give a folder away; everybody else has root's at hand.
    let foreign = if chown(&folder, Some(12_345), None).is_ok() { folder } else { PathBuf::from("/usr") };
    assert!(refusal(&foreign).contains("belongs to another user"));
}

#[test]
fn a_key_that_is_not_private_is_refused() {
    let fixture = Fixture::new();
    assert_eq!(fixture.key.metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(fixture.key.parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
    let refusal = || Cache::open(&fixture.folder, &fixture.key).unwrap_err().to_string();
    for mode in [0o644, 0o640, 0o602] {
        fs::set_permissions(&fixture.key, fs::Permissions::from_mode(mode)).unwrap();
        assert!(
            refusal().contains("is open to other users (make it mode 0600, or delete it for a new one)"),
            "{mode:o}"
        );
    }
    fs::set_permissions(&fixture.key, fs::Permissions::from_mode(0o600)).unwrap();
    let key = fs::read(&fixture.key).unwrap();
    for wrong in [&key[..0], &key[..63], &[key.as_slice(), b"x"].concat()] {
        fs::write(&fixture.key, wrong).unwrap();
        assert!(refusal().contains("is no key; delete it for a new one"), "{} bytes", wrong.len());
    }
    let elsewhere = fixture.key.with_file_name("elsewhere");
    fs::write(&elsewhere, &key).unwrap();
    fs::remove_file(&fixture.key).unwrap();
    symlink(&elsewhere, &fixture.key).unwrap();
    assert!(Cache::open(&fixture.folder, &fixture.key).is_err(), "a link is not followed");
}

#[test]
fn a_folder_that_is_missing_is_made_private() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a/b/cache");
    Cache::open(&folder, &parent.path().join("a/c/key")).unwrap();
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_cache_that_cannot_be_written_to_is_no_reason_to_fail() {
    let fixture = Fixture::new();
    let cache = Cache::open(&fixture.folder, &fixture.key).unwrap();
    fs::remove_dir_all(&fixture.folder).unwrap();
    let compiler = Compiler::in_process().with_cache(Some(cache));
    Plugin::load(engine(), &compiler, "version", &bytes("digest-a")).unwrap();
}
