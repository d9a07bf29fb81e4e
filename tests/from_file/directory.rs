//! The plugin directory while it is being followed.

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::symlink, net::UnixListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use gristmill::{
    config::Trust,
    plugin::{CompileLimits, Compiler, Digest},
    registry::{Catalog, Entry, Refusal, Registry},
};
use tempfile::TempDir;
use tokio::sync::watch;

use super::{bombs, compiler::GRISTMILL};
use crate::support::guests::{Calling, PATIENCE, bytes, engine};

/// A directory that is being followed.
pub struct Fixture {
    pub directory: TempDir,
    catalog: watch::Receiver<Arc<Catalog>>,
    _registry: Registry,
}

impl Fixture {
    /// Begins with these files.
    fn new(files: &[(&str, &[u8])]) -> Self {
        Self::with(Compiler::in_process(), files)
    }

    fn with(compiler: Compiler, files: &[(&str, &[u8])]) -> Self {
        Self::trusting(&Trust::default(), compiler, files)
    }

    pub fn trusting(trust: &Trust, compiler: Compiler, files: &[(&str, &[u8])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (file, content) in files {
            fs::write(directory.path().join(file), content).unwrap();
        }
        Self::of(directory, trust, compiler)
    }

    /// Follows this one.
    pub fn of(directory: TempDir, trust: &Trust, compiler: Compiler) -> Self {
        let registry = Registry::watch(Arc::clone(engine()), compiler, directory.path(), trust, None).unwrap();
        Self { directory, catalog: registry.catalog(), _registry: registry }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub fn put(&self, file: &str, content: &[u8]) {
        fs::write(self.path(file), content).unwrap();
    }

    /// Waits until the entry is like this.
    pub async fn until(&mut self, name: &str, is: impl Fn(Option<&Entry>) -> bool) -> Arc<Catalog> {
        let entry = |catalog: &Catalog| catalog.iter().find(|(at, _)| *at == name).map(|(_, entry)| entry.clone());
        let reached = self.catalog.wait_for(|catalog| is(entry(catalog).as_ref()));
        if let Ok(catalog) = tokio::time::timeout(PATIENCE, reached).await {
            return Arc::clone(&catalog.unwrap());
        }
        panic!("{name} stays {:?}", entry(&self.catalog.borrow()))
    }

    /// Waits until the file with these bytes is in use.
    pub async fn until_loaded(&mut self, name: &str, content: &[u8]) -> Arc<Catalog> {
        let digest = Digest::of(content);
        let loaded = |entry: Option<&Entry>| {
            entry.is_some_and(|entry| {
                entry.refused.is_none() && entry.plugin.as_ref().is_some_and(|plugin| plugin.digest == digest)
            })
        };
        self.until(name, loaded).await
    }

    /// Waits until the file is refused.
    pub async fn until_refused(&mut self, name: &str) -> (Arc<Catalog>, Refusal) {
        let refused = |entry: Option<&Entry>| entry.and_then(|entry| entry.refused.clone());
        let catalog = self.until(name, |entry| refused(entry).is_some()).await;
        let refusal = refused(catalog.iter().find(|(at, _)| *at == name).map(|(_, entry)| entry));
        (catalog, refusal.unwrap())
    }
}

pub async fn version(catalog: &Catalog) -> String {
    let plugin = catalog.get("version").unwrap();
    Calling::new("cat.jpg", "").run(plugin).await.text().to_owned()
}

#[tokio::test]
async fn a_file_that_is_there_at_the_start_is_loaded_before_anything_runs() {
    let fixture = Fixture::new(&[("version.wasm", &bytes("digest-a")), ("notes.txt", b"no plugin"), ("bad.wasm", b"")]);
    let catalog = Arc::clone(&fixture.catalog.borrow());
    assert_eq!(version(&catalog).await, "a");
    assert!(!catalog.contains("notes"));
    assert!(catalog.contains("bad") && catalog.get("bad").is_none());
    assert_eq!(catalog.iter().count(), 2);
}

#[tokio::test]
async fn a_file_that_is_dropped_in_is_loaded() {
    let mut fixture = Fixture::new(&[]);
    fixture.put("version.wasm", &bytes("digest-a"));
    let catalog = fixture.until_loaded("version", &bytes("digest-a")).await;
    assert_eq!(version(&catalog).await, "a");
}

#[tokio::test]
async fn a_file_that_is_replaced_is_swapped_and_work_in_flight_ends_on_the_old_one() {
    let (a, b) = (bytes("digest-a"), bytes("digest-b"));
    let mut fixture = Fixture::new(&[("version.wasm", &a)]);
    let before = Arc::clone(&fixture.catalog.borrow());
    fixture.put("version.wasm", &b);
    let after = fixture.until_loaded("version", &b).await;
    assert_eq!((version(&before).await.as_str(), version(&after).await.as_str()), ("a", "b"));

    // And back, renamed into place this time.
    fixture.put("new.tmp", &a);
    fs::rename(fixture.path("new.tmp"), fixture.path("version.wasm")).unwrap();
    let again = fixture.until_loaded("version", &a).await;
    assert_eq!(version(&again).await, "a");
    assert_eq!((version(&before).await.as_str(), version(&after).await.as_str()), ("a", "b"));
}

#[tokio::test]
async fn a_bad_file_keeps_the_last_good_one_and_says_why() {
    let good = bytes("digest-a");
    let mut fixture = Fixture::new(&[("version.wasm", &good)]);
    fixture.put("version.wasm", b"<html>404</html>");
    let (catalog, refusal) = fixture.until_refused("version").await;
    assert!(refusal.reason.starts_with("is not WebAssembly: it starts with `<html>40`"), "{refusal:?}");
    assert_eq!(refusal.digest, Some(Digest::of(b"<html>404</html>")));
    assert_eq!(version(&catalog).await, "a");

    // The same good one again clears the refusal.
    fixture.put("version.wasm", &good);
    fixture.until_loaded("version", &good).await;
}

#[tokio::test]
async fn a_file_that_is_deleted_is_unloaded_once_its_work_is_done() {
    let mut fixture = Fixture::new(&[("version.wasm", &bytes("digest-a"))]);
    let before = Arc::clone(&fixture.catalog.borrow());
    fs::remove_file(fixture.path("version.wasm")).unwrap();
    let after = fixture.until("version", |entry| entry.is_none()).await;
    assert!(after.get("version").is_none());
    assert_eq!(version(&before).await, "a");
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused_and_holds_nobody_up() {
    let mut fixture = Fixture::new(&[("version.wasm", &bytes("digest-a"))]);
    fixture.put("target", &bytes("digest-b"));
    symlink(fixture.path("target"), fixture.path("link.wasm")).unwrap();
    symlink("/nowhere", fixture.path("dangling.wasm")).unwrap();
    fs::create_dir(fixture.path("folder.wasm")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, fixture.path("pipe.wasm"), fifo, 0o600.into(), 0).unwrap();
    for name in ["link", "dangling", "folder", "pipe"] {
        let (_, refusal) = fixture.until_refused(name).await;
        assert_eq!(refusal.reason, "is not a regular file (symbolic links are not followed)", "{name}");
    }
    let _listener = UnixListener::bind(fixture.path("socket.wasm")).unwrap();
    fixture.until_refused("socket").await;

    // A link in the place of a plugin that is in use is a bad file like any other.
    fs::remove_file(fixture.path("version.wasm")).unwrap();
    symlink(fixture.path("target"), fixture.path("version.wasm")).unwrap();
    fixture.until_refused("version").await;

    fixture.put("late.wasm", &bytes("nothing"));
    fixture.until_loaded("late", &bytes("nothing")).await;
}

#[tokio::test]
async fn a_huge_file_is_refused() {
    let mut fixture = Fixture::new(&[]);
    let huge = fs::File::create(fixture.path("huge.wasm")).unwrap();
    huge.set_len(1 << 40).unwrap();
    let (_, refusal) = fixture.until_refused("huge").await;
    assert_eq!(refusal.reason, "has 1099511627776 bytes, more than the 134217728 that a plugin may have");
}

#[tokio::test]
async fn names_that_no_route_could_use_are_refused() {
    let content = bytes("nothing");
    let mut fixture = Fixture::new(&[]);
    let long = "n".repeat(200);
    let odd = ["UPPER", "two words", "-dash", ".hidden", "", "ünïcødé", "a.b", "line\nfeed", "\u{1b}[2J", &long];
    for name in odd {
        fixture.put(&format!("{name}.wasm"), &content);
    }
    for name in odd {
        let (catalog, refusal) = fixture.until_refused(name).await;
        assert!(catalog.get(name).is_none(), "{name:?}");
        assert!(refusal.reason.contains("cannot be a plugin's name"), "{refusal:?}");
        assert!(!refusal.reason.chars().any(char::is_control), "{refusal:?}");
    }
    // Of a name that is no text not even the refusal could be looked up.
    use std::os::unix::ffi::OsStrExt as _;
    let no_text = fixture.directory.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe.wasm"));
    fs::write(no_text, &content).unwrap();
    fixture.put("fine-1_x.wasm", &content);
    let catalog = fixture.until_loaded("fine-1_x", &content).await;
    assert_eq!(catalog.iter().filter(|(_, entry)| entry.plugin.is_some()).count(), 1);
}

#[tokio::test]
async fn a_file_that_is_written_in_two_halves_ends_loaded() {
    let content = bytes("digest-a");
    let (first, second) = content.split_at(content.len() / 2);
    let mut fixture = Fixture::new(&[]);
    let mut file = fs::File::create(fixture.path("version.wasm")).unwrap();
    file.write_all(first).unwrap();
    // The writer takes so long that the half of it has been looked at.
    fixture.until_refused("version").await;
    file.write_all(second).unwrap();
    let catalog = fixture.until_loaded("version", &content).await;
    assert_eq!(version(&catalog).await, "a");
}

#[tokio::test]
async fn a_file_edited_in_place_keeps_the_old_version_meanwhile() {
    let (a, b) = (bytes("digest-a"), bytes("digest-b"));
    let mut fixture = Fixture::new(&[("version.wasm", &a)]);
    let mut file = fs::File::create(fixture.path("version.wasm")).unwrap();
    let (catalog, refusal) = fixture.until_refused("version").await;
    assert_eq!(refusal.reason, "the file is empty");
    assert_eq!(version(&catalog).await, "a");
    file.write_all(&b).unwrap();
    fixture.until_loaded("version", &b).await;
}

#[tokio::test]
async fn one_bad_file_does_not_keep_others_out() {
    let mut fixture = Fixture::new(&[]);
    for (file, content) in [("a.wasm", b"".as_slice()), ("b.wasm", b"text"), ("c.wasm", b"\0asm\x01\0\0\0")] {
        fixture.put(file, content);
    }
    fixture.put("version.wasm", &bytes("digest-b"));
    fixture.until_loaded("version", &bytes("digest-b")).await;
    for (name, reason) in [("a", "is empty"), ("b", "is not WebAssembly"), ("c", "without WIT metadata")] {
        let (_, refusal) = fixture.until_refused(name).await;
        assert!(refusal.reason.contains(reason), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_file_that_takes_long_to_compile_holds_up_no_other() {
    let compiler = Compiler::in_child(GRISTMILL, CompileLimits::default());
    let good = bytes("digest-a");
    let mut fixture = Fixture::with(compiler, &[("version.wasm", &good)]);
    // It would take minutes, and its name comes first.
    fixture.put("bomb.wasm", &bombs::giant_function());
    fixture.until("bomb", |entry| entry.is_some_and(|entry| entry.compiling.is_some())).await;
    fixture.put("nothing.wasm", &bytes("nothing"));
    fixture.put("version.wasm", &bytes("digest-b"));
    fixture.until_loaded("nothing", &bytes("nothing")).await;
    let catalog = fixture.until_loaded("version", &bytes("digest-b")).await;
    assert_eq!(version(&catalog).await, "b");
    assert!(catalog.is_compiling("bomb") && catalog.get("bomb").is_none());
    // Deleted before it was compiled, it is nobody's business any more.
    fs::remove_file(fixture.path("bomb.wasm")).unwrap();
    fixture.until("bomb", |entry| entry.is_none()).await;
}

#[tokio::test]
async fn a_file_that_is_over_the_compiler_s_limits_is_refused_and_the_last_good_one_stays() {
    let limits = CompileLimits { cpu_time: Duration::from_secs(1), ..CompileLimits::default() };
    let good = bytes("digest-a");
    let mut fixture = Fixture::with(Compiler::in_child(GRISTMILL, limits), &[("version.wasm", &good)]);
    let bomb = bombs::giant_function();
    fixture.put("version.wasm", &bomb);
    let (catalog, refusal) = fixture.until_refused("version").await;
    assert!(refusal.reason.starts_with("takes more than 1s of CPU time to compile: leave out"), "{refusal:?}");
    assert_eq!(refusal.digest, Some(Digest::of(&bomb)));
    assert_eq!(version(&catalog).await, "a");
    fixture.put("version.wasm", &bytes("digest-b"));
    fixture.until_loaded("version", &bytes("digest-b")).await;
}

#[test]
fn a_directory_that_cannot_be_listed_is_an_error_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("plugins");
    let watched = Registry::watch(Arc::clone(engine()), Compiler::in_process(), &missing, &Trust::default(), None);
    let error = watched.err().unwrap();
    assert!(error.to_string().starts_with(&format!("plugin directory {}: ", missing.display())), "{error}");
}
