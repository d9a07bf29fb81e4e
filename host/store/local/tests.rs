use std::{fs, os::unix::fs::symlink};

use super::*;
use crate::{
    io::Outputs,
    store::{OutputMeta, PluginVersion},
};

struct Bucket {
    store: LocalStore,
    folder: tempfile::TempDir,
}

impl Bucket {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    fn at(folder: tempfile::TempDir) -> Self {
        let lock = Arc::new(Lock::acquire(folder.path()).unwrap());
        Self { store: LocalStore::open(&lock, &["uploads/", "processed/"]).unwrap(), folder }
    }

    /// The host dies and a new one starts.
    fn restart(self) -> Self {
        let Self { store, folder } = self;
        drop(store);
        Self::at(folder)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.path().join(key)
    }

    fn write(&self, key: &str, content: &str) {
        fs::create_dir_all(self.path(key).parent().unwrap()).unwrap();
        fs::write(self.path(key), content).unwrap();
    }

    fn read(&self, key: &str) -> Option<String> {
        fs::read_to_string(self.path(key)).ok()
    }

    fn staged(&self) -> usize {
        fs::read_dir(self.path(".gristmill/staging/outputs")).unwrap().count()
    }
}

fn from(object: &LocalObject) -> Provenance {
    Provenance {
        source_key: object.meta.key.clone(),
        source_etag: object.meta.etag.clone(),
        source_version: None,
        plugins: vec![PluginVersion { name: "parse".to_owned(), digest: "00".repeat(32) }],
    }
}

fn output(key: &str) -> OutputMeta {
    OutputMeta { key: key.to_owned(), content_type: "text/plain".to_owned(), metadata: Vec::new() }
}

fn nowhere() -> Provenance {
    Provenance { source_key: String::new(), source_etag: String::new(), source_version: None, plugins: vec![] }
}

/// Renames by hand what a move would have, up to the moment of the crash.
fn take_away(bucket: &Bucket, key: &str) {
    let transit = bucket.path(".gristmill/staging/moving").join(key);
    fs::create_dir_all(transit.parent().unwrap()).unwrap();
    fs::rename(bucket.path(key), transit).unwrap();
}

#[tokio::test]
async fn a_crash_before_the_move_leaves_only_an_orphaned_record() {
    let bucket = Bucket::new();
    bucket.write("uploads/a", "x");
    let object = bucket.store.open("uploads/a").await.unwrap();
    let record = Record { provenance: from(&object), content_type: None, metadata: Vec::new() };
    bucket.store.record("processed/a", &object.identity, &record, &Expect::Absent).await.unwrap();

    let bucket = bucket.restart();
    assert_eq!(bucket.store.inspect("processed/a").await.unwrap(), None);
    bucket.write("processed/a", "foreign");
    assert_eq!(bucket.store.inspect("processed/a").await.unwrap().unwrap().provenance, None);
    bucket.store.verify(&object).await.unwrap();
}

#[tokio::test]
async fn a_file_that_was_on_its_way_is_put_back() {
    let bucket = Bucket::new();
    for key in ["uploads/a", "uploads/deep/er/b c", "uploads/deep/c"] {
        bucket.write(key, key);
        take_away(&bucket, key);
    }
    fs::remove_dir_all(bucket.path("uploads")).unwrap();

    let bucket = bucket.restart();
    for key in ["uploads/a", "uploads/deep/er/b c", "uploads/deep/c"] {
        assert_eq!(bucket.read(key).unwrap(), key);
    }
    assert_eq!(fs::read_dir(bucket.path(".gristmill/staging/moving")).unwrap().count(), 0);
}

/// Another delivery moves it just now, and may yet have to put it back.
#[tokio::test]
async fn a_file_on_its_way_is_not_superseded() {
    let bucket = Bucket::new();
    bucket.write("uploads/a", "x");
    let object = bucket.store.open("uploads/a").await.unwrap();
    take_away(&bucket, "uploads/a");
    assert!(matches!(bucket.store.verify(&object).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(bucket.store.body(&object).read(1).await, Err(IoError::Unavailable(_))));
}

#[tokio::test]
async fn a_newer_upload_wins_over_a_file_that_was_on_its_way() {
    let bucket = Bucket::new();
    bucket.write("uploads/a", "old");
    take_away(&bucket, "uploads/a");
    bucket.write("uploads/a", "newer");
    let bucket = bucket.restart();
    assert_eq!(bucket.read("uploads/a").unwrap(), "newer");
    assert_eq!(fs::read_dir(bucket.path(".gristmill/staging/moving")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_that_was_on_its_way_is_kept_when_something_else_stands_in_its_place() {
    let bucket = Bucket::new();
    bucket.write("uploads/a", "precious");
    take_away(&bucket, "uploads/a");
    bucket.write("uploads/a/b", "y");

    let bucket = bucket.restart();
    assert_eq!(bucket.read(".gristmill/staging/moving/uploads/a").as_deref(), Some("precious"));
    assert_eq!(bucket.read("uploads/a/b").as_deref(), Some("y"));

    fs::remove_dir_all(bucket.path("uploads/a")).unwrap();
    let bucket = bucket.restart();
    assert_eq!(bucket.read("uploads/a").as_deref(), Some("precious"));
}

#[tokio::test]
async fn where_an_old_result_came_from_is_known_for_ever() {
    let bucket = Bucket::new();
    for content in ["one", "two and more"] {
        bucket.write("uploads/a", content);
        let object = bucket.store.open("uploads/a").await.unwrap();
        let relocate =
            async |expect: &Expect| bucket.store.relocate(&object, "processed/a", &from(&object), expect).await;
        if let Err(error) = relocate(&Expect::Absent).await {
            assert!(matches!(error, StoreError::Exists(_)), "{error}");
            let there = bucket.store.inspect("processed/a").await.unwrap().unwrap();
            assert_eq!(there.provenance.map(|from| from.source_key).as_deref(), Some("uploads/a"), "before {content}");
            relocate(&Expect::Etag(there.etag)).await.unwrap();
        }
        assert_eq!(bucket.read("processed/a").as_deref(), Some(content));
        let database = rusqlite::Connection::open(bucket.path(".gristmill/provenance.db")).unwrap();
        database.execute("UPDATE provenance SET recorded = 0", []).unwrap();
    }
}

#[tokio::test]
async fn a_crash_after_the_move_is_seen_at_the_destination() {
    let bucket = Bucket::new();
    bucket.write("uploads/a", "x");
    let object = bucket.store.open("uploads/a").await.unwrap();
    let provenance = from(&object);
    bucket.store.relocate(&object, "processed/a", &provenance, &Expect::Absent).await.unwrap();

    let bucket = bucket.restart();
    assert!(matches!(bucket.store.open("uploads/a").await, Err(StoreError::NotFound(_))));
    assert_eq!(bucket.store.inspect("processed/a").await.unwrap().unwrap().provenance, Some(provenance));
}

#[tokio::test]
async fn a_source_that_changed_after_the_last_look_is_put_back() {
    let bucket = Bucket::new();
    bucket.write("uploads/a", "old");
    let object = bucket.store.open("uploads/a").await.unwrap();
    bucket.write("uploads/a", "newer");
    // Not through `relocate`, which would look first.
    let outcome = bucket.store.shared.relocate("uploads/a", &object.identity, "processed/a", &Expect::Absent);
    assert!(matches!(outcome, Err(StoreError::Superseded)), "{outcome:?}");
    assert_eq!((bucket.read("uploads/a").as_deref(), bucket.read("processed/a")), (Some("newer"), None));
}

#[tokio::test]
async fn a_source_that_became_a_directory_is_put_back() {
    let bucket = Bucket::new();
    bucket.write("uploads/a", "old");
    let object = bucket.store.open("uploads/a").await.unwrap();
    fs::remove_file(bucket.path("uploads/a")).unwrap();
    bucket.write("uploads/a/b", "inside");
    let outcome = bucket.store.shared.relocate("uploads/a", &object.identity, "processed/a", &Expect::Absent);
    assert!(matches!(outcome, Err(StoreError::Superseded)), "{outcome:?}");
    assert_eq!(bucket.read("uploads/a/b").as_deref(), Some("inside"));
}

#[tokio::test]
async fn a_file_on_its_way_is_not_missing() {
    let bucket = Bucket::new();
    bucket.write("uploads/a", "x");
    let object = bucket.store.open("uploads/a").await.unwrap();
    take_away(&bucket, "uploads/a");
    assert!(matches!(bucket.store.open("uploads/a").await, Err(StoreError::Unavailable(_))));
    let outcome = bucket.store.relocate(&object, "processed/a", &from(&object), &Expect::Absent).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_destination_that_is_the_same_file_is_moved_to() {
    let bucket = Bucket::new();
    bucket.write("uploads/a", "x");
    fs::hard_link(bucket.path("uploads/a"), bucket.path("processed/a")).unwrap();
    let object = bucket.store.open("uploads/a").await.unwrap();
    let there = Expect::Etag(bucket.store.inspect("processed/a").await.unwrap().unwrap().etag);
    bucket.store.relocate(&object, "processed/a", &from(&object), &there).await.unwrap();
    assert_eq!((bucket.read("uploads/a"), bucket.read("processed/a").as_deref()), (None, Some("x")));
    assert!(matches!(bucket.store.open("uploads/a").await, Err(StoreError::NotFound(_))));
}

#[tokio::test]
async fn a_change_in_place_is_noticed_while_reading() {
    let bucket = Bucket::new();
    bucket.write("uploads/a", &"a".repeat(3_000_000));
    let object = bucket.store.open("uploads/a").await.unwrap();
    let mut body = bucket.store.body(&object);
    body.read(100).await.unwrap();
    let file = fs::File::options().write(true).open(bucket.path("uploads/a")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!(matches!(body.read_at(10, 10).await, Err(IoError::Superseded)));
    file.set_len(10).unwrap();
    assert!(matches!(body.read_at(2_000_000, 10).await, Err(IoError::Superseded)));
    let outcome = loop {
        match body.read(1 << 20).await {
            Ok(bytes) if bytes.is_empty() => break Ok(()),
            Ok(bytes) => assert!(bytes.iter().all(|byte| *byte == b'a')),
            Err(error) => break Err(error),
        }
    };
    assert!(matches!(outcome, Err(IoError::Superseded)), "{outcome:?}");
}

#[tokio::test]
async fn links_and_special_files_are_no_objects() {
    let bucket = Bucket::new();
    bucket.write("secret", "x");
    symlink(bucket.path("secret"), bucket.path("uploads/link")).unwrap();
    symlink(bucket.path("processed"), bucket.path("uploads/folder")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bucket.path("uploads/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for key in ["uploads/link", "uploads/folder/x", "uploads/pipe", "uploads/folder", "processed"] {
        let outcome = bucket.store.open(key).await;
        assert!(matches!(outcome, Err(StoreError::Impossible(_))), "{key}: {outcome:?}");
    }
}

#[tokio::test]
async fn what_is_in_the_way_of_an_output_is_named() {
    let bucket = Bucket::new();
    let outside = tempfile::tempdir().unwrap();
    bucket.write("processed/file", "x");
    fs::create_dir(bucket.path("processed/folder")).unwrap();
    symlink(outside.path(), bucket.path("processed/link")).unwrap();
    let long = format!("processed/{}", "n".repeat(300));
    let keys = ["processed/file/b", "processed/folder", "processed/link/b", &long, "processed/../b", ".gristmill/lock"];
    for key in keys {
        for expect in [Expect::Absent, Expect::Etag("x".to_owned())] {
            let staging = bucket.store.staging(&nowhere());
            staging.create(output(key));
            let outcome = bucket.store.publish(&staging, 0, &expect).await;
            match outcome {
                Err(StoreError::Impossible(why)) => assert!(why.contains(key.rsplit('/').nth(1).unwrap()), "{why}"),
                Err(StoreError::Exists(_)) if key == long && expect != Expect::Absent => {}
                other => panic!("{key}: {other:?}"),
            }
        }
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_move_that_cannot_be_leaves_the_source_in_its_place() {
    let bucket = Bucket::new();
    bucket.write("uploads/a", "x");
    fs::create_dir(bucket.path("processed/a")).unwrap();
    let object = bucket.store.open("uploads/a").await.unwrap();
    let long = format!("processed/{}", "n".repeat(300));
    for to in ["processed/a", &long] {
        let outcome = bucket.store.relocate(&object, to, &from(&object), &Expect::Absent).await;
        assert!(matches!(outcome, Err(StoreError::Impossible(_))), "{outcome:?}");
        bucket.store.verify(&object).await.unwrap();
    }
}

#[tokio::test]
async fn staged_files_go_with_their_staging_or_the_next_start() {
    let bucket = Bucket::new();
    let staging = bucket.store.staging(&nowhere());
    staging.create(output("processed/a"));
    staging.create(output("processed/b"));
    staging.write(0, vec![1; 3 << 20].into()).await.unwrap();
    staging.write(1, vec![1; 10].into()).await.unwrap();
    assert_eq!(bucket.staged(), 1);
    let last = staging.clone();
    drop(staging);
    assert_eq!(bucket.staged(), 1);
    drop(last);
    let Bucket { store, folder } = bucket;
    // Ends the janitor after its work.
    drop(store);
    assert_eq!(fs::read_dir(folder.path().join(".gristmill/staging/outputs")).unwrap().count(), 0);

    fs::write(folder.path().join(".gristmill/staging/outputs/7-0"), "left by a crash").unwrap();
    assert_eq!(Bucket::at(folder).staged(), 0);
}

#[test]
fn an_output_whose_write_was_cancelled_is_not_published() {
    // With one thread for file work, held up, so that the write has certainly not ended.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let bucket = Bucket::new();
        let (release, held) = std::sync::mpsc::channel();
        let hold = tokio::task::spawn_blocking(move || held.recv());
        let staging = bucket.store.staging(&nowhere());
        staging.create(output("processed/a"));
        let mut write = staging.write(0, vec![1; 3 << 20].into());
        std::future::poll_fn(|context| {
            assert!(write.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        drop(write);
        release.send(()).unwrap();
        hold.await.unwrap().unwrap();

        assert!(staging.write(0, vec![2].into()).await.is_err());
        let outcome = bucket.store.publish(&staging, 0, &Expect::Absent).await;
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        assert_eq!(bucket.read("processed/a"), None);
    });
}

#[tokio::test]
async fn moves_and_overwrites_at_the_same_time_lose_no_upload() {
    let bucket = Bucket::new();
    let uploads = 300;
    bucket.write("uploads/a", "0");
    let (new, key) = (bucket.path("new"), bucket.path("uploads/a"));
    let uploader = tokio::task::spawn_blocking(move || {
        for n in 1..=uploads {
            fs::write(&new, n.to_string()).unwrap();
            fs::rename(&new, &key).unwrap();
        }
    });
    let mut moved = Vec::new();
    loop {
        let ended = uploader.is_finished();
        match bucket.store.open("uploads/a").await {
            Ok(object) => {
                let to = format!("processed/{}", moved.len());
                match bucket.store.relocate(&object, &to, &from(&object), &Expect::Absent).await {
                    Ok(()) => moved.push(bucket.read(&to).unwrap().parse::<u32>().unwrap()),
                    Err(StoreError::Superseded | StoreError::NotFound(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Err(StoreError::NotFound(_)) if ended => break,
            Err(StoreError::NotFound(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    uploader.await.unwrap();
    assert_eq!(moved.last(), Some(&uploads), "the last upload was lost");
    assert!(moved.is_sorted_by(|a, b| a < b), "an upload was moved twice: {moved:?}");
}
