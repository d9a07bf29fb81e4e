//! Who may put plugins into the directory, and by which links.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
    sync::Arc,
};

use gristmill::{
    config::Trust,
    plugin::{Compiler, Digest},
    registry::Registry,
};
use tempfile::TempDir;

use super::directory::{Fixture, version};
use crate::support::guests::{PATIENCE, bytes, engine};

/// Neither root's nor that of whoever runs the tests.
const SOMEBODY: u32 = 12_345;

fn any_owner() -> Trust {
    Trust { any_owner: true, ..Trust::default() }
}

fn links() -> Trust {
    Trust { links: true, ..Trust::default() }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Only root can give files away.
fn give_away(path: &Path, user: Option<u32>, group: Option<u32>) -> bool {
    let given = chown(path, user, group);
    if given.is_err() {
        eprintln!("not checked: this needs root");
    }
    given.is_ok()
}

#[tokio::test]
async fn a_file_that_others_can_write_to_is_refused_until_they_cannot() {
    let good = bytes("digest-a");
    let mut fixture = Fixture::trusting(&Trust::default(), Compiler::in_process(), &[("version.wasm", &good)]);
    let path = fixture.path("version.wasm");
    for mode in [0o666, 0o646, 0o602] {
        set_mode(&path, mode);
        let (catalog, refusal) = fixture.until_refused("version").await;
        let expected =
            format!("can be written to by others (mode {mode:04o}): `chmod go-w` it, or set `plugins_of_any_owner`");
        assert_eq!(refusal.reason, expected);
        // What was loaded before it could be written to stays.
        assert_eq!(version(&catalog).await, "a");
        set_mode(&path, 0o644);
        fixture.until_loaded("version", &good).await;
    }
    // A group of this user alone may write, one of others may not.
    set_mode(&path, 0o664);
    if give_away(&path, None, Some(SOMEBODY)) {
        let (_, refusal) = fixture.until_refused("version").await;
        assert!(refusal.reason.starts_with("can be written to by others (mode 0664)"), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_file_of_somebody_else_is_refused() {
    let mut fixture = Fixture::trusting(&Trust::default(), Compiler::in_process(), &[]);
    // Not seen before it is somebody else's.
    fixture.put("version.tmp", &bytes("digest-a"));
    if !give_away(&fixture.path("version.tmp"), Some(SOMEBODY), None) {
        return;
    }
    let path = fixture.path("version.wasm");
    fs::rename(fixture.path("version.tmp"), &path).unwrap();
    let (catalog, refusal) = fixture.until_refused("version").await;
    assert!(catalog.get("version").is_none());
    let expected = "belongs to user 12345, not to root or the user that the host runs as: `chown` it, or set \
                    `plugins_of_any_owner`";
    assert_eq!(refusal.reason, expected);
    assert!(give_away(&path, Some(0), None));
    fixture.until_loaded("version", &bytes("digest-a")).await;
}

#[test]
fn a_directory_that_others_can_write_to_is_an_error_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let start = |trust: &Trust| {
        Registry::watch(Arc::clone(engine()), Compiler::in_process(), directory.path(), trust, None)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    set_mode(directory.path(), 0o757);
    let error = start(&Trust::default()).unwrap_err();
    let expected = format!("plugin directory {} can be written to by others (mode 0757)", directory.path().display());
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(start(&any_owner()), Ok(()));
    set_mode(directory.path(), 0o755);
    assert_eq!(start(&Trust::default()), Ok(()));
}

#[tokio::test]
async fn a_directory_that_was_open_to_others_is_followed_again_once_it_is_not() {
    let (a, b) = (bytes("digest-a"), bytes("digest-b"));
    let mut fixture = Fixture::trusting(&Trust::default(), Compiler::in_process(), &[("version.wasm", &a)]);
    set_mode(fixture.directory.path(), 0o777);
    fixture.put("version.wasm", &b);
    set_mode(fixture.directory.path(), 0o700);
    let catalog = fixture.until_loaded("version", &b).await;
    assert_eq!(version(&catalog).await, "b");
}

#[tokio::test]
async fn a_directory_that_is_replaced_as_a_whole_is_found_by_the_next_scan() {
    let (a, b) = (bytes("digest-a"), bytes("digest-b"));
    let parent = tempfile::tempdir().unwrap();
    let plugins = parent.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    fs::write(plugins.join("version.wasm"), &a).unwrap();
    let registry =
        Registry::watch(Arc::clone(engine()), Compiler::in_process(), &plugins, &Trust::default(), None).unwrap();
    let mut catalog = registry.catalog();
    // The watch goes with the old one: from now on there are no events.
    fs::rename(&plugins, parent.path().join("old")).unwrap();
    fs::create_dir(&plugins).unwrap();
    fs::write(plugins.join("version.wasm"), &b).unwrap();
    let is_new = |digest| digest == Digest::of(&bytes("digest-b"));
    let reached = catalog.wait_for(|catalog| catalog.get("version").is_some_and(|plugin| is_new(plugin.digest)));
    let catalog = tokio::time::timeout(PATIENCE, reached).await.unwrap().unwrap().clone();
    assert_eq!(version(&catalog).await, "b");
}

#[tokio::test]
async fn where_any_owner_is_trusted_files_are_taken_whoever_can_change_them() {
    let mut fixture = Fixture::trusting(&any_owner(), Compiler::in_process(), &[]);
    set_mode(fixture.directory.path(), 0o777);
    fixture.put("version.wasm", &bytes("digest-a"));
    set_mode(&fixture.path("version.wasm"), 0o666);
    give_away(&fixture.path("version.wasm"), Some(SOMEBODY), Some(SOMEBODY));
    let catalog = fixture.until_loaded("version", &bytes("digest-a")).await;
    assert_eq!(version(&catalog).await, "a");
    // Links are another matter.
    symlink(fixture.path("version.wasm"), fixture.path("link.wasm")).unwrap();
    fixture.until_refused("link").await;
}

/// Files and a version of them as Kubernetes writes a volume: each version is a folder, and `..data` leads to the one of
/// now.
fn volume(files: &[(&str, &[u8])]) -> TempDir {
    let volume = tempfile::tempdir().unwrap();
    write_version(volume.path(), "..2026_11_01", files);
    symlink("..2026_11_01", volume.path().join("..data")).unwrap();
    for (file, _) in files {
        symlink(Path::new("..data").join(file), volume.path().join(file)).unwrap();
    }
    volume
}

fn write_version(volume: &Path, version: &str, files: &[(&str, &[u8])]) {
    fs::create_dir(volume.join(version)).unwrap();
    for (file, content) in files {
        fs::write(volume.join(version).join(file), content).unwrap();
    }
}

/// Replaces all files in one step, and the old version goes.
fn swap(volume: &Path, version: &str, files: &[(&str, &[u8])]) {
    let old = fs::read_link(volume.join("..data")).unwrap();
    write_version(volume, version, files);
    lead_to(volume, version);
    fs::remove_dir_all(volume.join(old)).unwrap();
}

fn lead_to(volume: &Path, target: &str) {
    symlink(target, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
}

#[tokio::test]
async fn a_volume_of_kubernetes_is_followed_where_that_is_set() {
    let (a, b) = (bytes("digest-a"), bytes("digest-b"));
    let mut fixture = Fixture::of(volume(&[("version.wasm", &a)]), &links(), Compiler::in_process());
    let catalog = fixture.until_loaded("version", &a).await;
    assert_eq!(version(&catalog).await, "a");
    let root = fixture.directory.path().to_owned();
    swap(&root, "..2026_11_02", &[("version.wasm", &b)]);
    let catalog = fixture.until_loaded("version", &b).await;
    assert_eq!(version(&catalog).await, "b");
    swap(&root, "..2026_11_03", &[("version.wasm", b"no plugin")]);
    let (catalog, refusal) = fixture.until_refused("version").await;
    assert!(refusal.reason.starts_with("is not WebAssembly"), "{refusal:?}");
    assert_eq!(version(&catalog).await, "b");
    swap(&root, "..2026_11_04", &[("version.wasm", &a)]);
    fixture.until_loaded("version", &a).await;
    // Whoever may write to the folder of now may change what is in it.
    set_mode(&root.join("..2026_11_04"), 0o777);
    fs::write(root.join("..2026_11_04/version.wasm"), &b).unwrap();
    let (_, refusal) = fixture.until_refused("version").await;
    assert!(refusal.reason.starts_with("can be written to by others (mode 0777)"), "{refusal:?}");
}

#[tokio::test]
async fn a_volume_of_kubernetes_is_refused_where_nothing_is_set() {
    let volume = volume(&[("version.wasm", &bytes("digest-a"))]);
    let mut fixture = Fixture::of(volume, &Trust::default(), Compiler::in_process());
    let (_, refusal) = fixture.until_refused("version").await;
    let expected =
        "is a link through `..data`, as in the volumes of Kubernetes: set `plugins_by_links` to follow those";
    assert_eq!(refusal.reason, expected);
}

#[tokio::test]
async fn no_other_link_is_followed() {
    let good = bytes("digest-a");
    let mut fixture = Fixture::of(volume(&[("version.wasm", &good)]), &links(), Compiler::in_process());
    let root = fixture.directory.path().to_owned();
    let outside = volume(&[("version.wasm", &good)]);
    symlink(outside.path().join("..2026_11_01/version.wasm"), root.join("absolute.wasm")).unwrap();
    symlink("..data/version.wasm", root.join("of-another.wasm")).unwrap();
    symlink("..2026_11_01/version.wasm", root.join("direct.wasm")).unwrap();
    symlink("..data/../..data/up.wasm", root.join("up.wasm")).unwrap();
    for name in ["absolute", "of-another", "direct", "up"] {
        let (_, refusal) = fixture.until_refused(name).await;
        assert_eq!(refusal.reason, "is not a regular file (symbolic links are not followed)", "{name}");
    }
    // `..data` must lead to a folder right here, and that must be one.
    let elsewhere = outside.path().join("..2026_11_01");
    symlink(&elsewhere, root.join("..link")).unwrap();
    for target in [elsewhere.to_str().unwrap(), "..", "..link", "../..2026_11_01", "version.wasm"] {
        lead_to(&root, target);
        let (_, refusal) = fixture.until_refused("version").await;
        assert!(refusal.reason.contains("is not a regular file"), "{target}: {refusal:?}");
        lead_to(&root, "..2026_11_01");
        fixture.until_loaded("version", &good).await;
    }
    // In the folder, too, a link is none.
    fs::remove_file(root.join("..2026_11_01/version.wasm")).unwrap();
    symlink(elsewhere.join("version.wasm"), root.join("..2026_11_01/version.wasm")).unwrap();
    let (_, refusal) = fixture.until_refused("version").await;
    assert_eq!(refusal.reason, "is not a regular file (symbolic links are not followed)");
}
