use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    directory::Identity,
    event::{self, ObjectEvent},
    queue::{Queue, local::Clock},
};

/// Short enough for a test, long enough for its writes in between; no scan but the first.
const PACE: Pace = Pace {
    settle: Duration::from_millis(100),
    patience: Duration::from_millis(400),
    scan: NEVER,
    scan_unwatched: Duration::from_millis(100),
};

/// Beyond any test.
const NEVER: Duration = Duration::from_secs(3_600);

/// For any condition, on any machine.
const DEADLINE: Duration = Duration::from_secs(20);

struct Bench {
    folder: tempfile::TempDir,
    lock: Lock,
    queue: Arc<LocalQueue>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("uploads")).unwrap();
        let lock = Lock::acquire(folder.path()).unwrap();
        let queue = LocalQueue::open(&lock.state().join("queue.db"), DEADLINE, Clock::system()).unwrap();
        Self { folder, lock, queue: Arc::new(queue) }
    }

    fn start(&self, pace: Pace) -> Intake {
        Intake::start_at(pace, &self.lock, "uploads/", "bucket", Arc::clone(&self.queue)).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("uploads").join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    /// The events of all messages, which stay in the queue.
    async fn events(&self) -> Vec<ObjectEvent> {
        let messages = self.queue.receive(1_000).await.unwrap();
        let mut events = Vec::new();
        for message in messages {
            events.extend(event::parse(&message.body).unwrap().objects);
            self.queue.set_visibility(&message.receipt, Duration::ZERO).await.unwrap();
        }
        events
    }

    async fn keys(&self) -> BTreeSet<String> {
        self.events().await.into_iter().map(|event| event.key).collect()
    }

    async fn eventually(&self, keys: &[&str]) {
        let expected: BTreeSet<String> = keys.iter().map(|key| format!("uploads/{key}")).collect();
        let start = Instant::now();
        loop {
            let found = self.keys().await;
            if found == expected {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{found:?} instead of {expected:?}");
        }
    }
}

async fn idle(intake: &Intake) {
    pending(intake, 0).await;
}

/// Waits until so much is pending. What was sent is counted for a moment longer.
async fn pending(intake: &Intake, expected: usize) {
    let start = Instant::now();
    while intake.pending() != expected {
        assert!(start.elapsed() < DEADLINE && intake.alive(), "{} instead of {expected}", intake.pending());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn what_is_there_at_the_start_is_sent_once() {
    let bench = Bench::new();
    let mut names: Vec<String> = (0..700).map(|n| format!("{}/{n}", n % 7)).collect();
    names.extend(["-rf", "a b+c%.jpg", "ü/日本", "empty"].map(str::to_owned));
    for name in &names {
        bench.write(name, if name == "empty" { "" } else { name });
    }
    for _ in 0..2 {
        let intake = bench.start(PACE);
        idle(&intake).await;
        assert_eq!(bench.queue.live().await.unwrap(), names.len());
        intake.shutdown().await;
    }
    let expected: BTreeSet<String> = names.iter().map(|name| format!("uploads/{name}")).collect();
    assert_eq!(bench.keys().await, expected);
}

#[tokio::test]
async fn an_event_says_what_the_store_will_say() {
    let bench = Bench::new();
    bench.write("a.txt", "12345");
    let intake = bench.start(PACE);
    idle(&intake).await;
    let event = bench.events().await.remove(0);
    let identity = Identity::of(&rustix::fs::lstat(bench.path("a.txt")).unwrap());
    assert_eq!((&*event.bucket, &*event.key, event.size), ("bucket", "uploads/a.txt", Some(5)));
    assert_eq!(event.etag, Some(identity.to_string()));
    assert!(event.event_time.unwrap().ends_with('Z') && event.event_name.starts_with("ObjectCreated:"));
}

#[tokio::test]
async fn all_ways_to_put_a_file_there_are_seen() {
    let bench = Bench::new();
    let intake = bench.start(PACE);
    idle(&intake).await;
    let outside = bench.folder.path();
    bench.write("written", "x");
    bench.write("new/folder/written", "x");
    fs::write(outside.join("1"), "x").unwrap();
    fs::rename(outside.join("1"), bench.path("moved")).unwrap();
    fs::write(outside.join("2"), "x").unwrap();
    fs::hard_link(outside.join("2"), bench.path("linked")).unwrap();
    fs::create_dir_all(outside.join("tree/deep")).unwrap();
    fs::write(outside.join("tree/deep/3"), "x").unwrap();
    fs::rename(outside.join("tree"), bench.path("tree")).unwrap();
    bench.write(".hidden.tmp", "x");
    fs::rename(bench.path(".hidden.tmp"), bench.path("copied by rsync")).unwrap();
    bench.eventually(&["written", "new/folder/written", "moved", "linked", "tree/deep/3", "copied by rsync"]).await;
    intake.shutdown().await;
}

#[tokio::test]
async fn another_version_is_another_message() {
    let bench = Bench::new();
    bench.write("a", "1");
    let intake = bench.start(PACE);
    idle(&intake).await;
    bench.write("a", "22");
    let start = Instant::now();
    while bench.queue.live().await.unwrap() < 2 {
        assert!(start.elapsed() < DEADLINE);
    }
    let sizes: BTreeSet<_> = bench.events().await.into_iter().map(|event| event.size).collect();
    assert_eq!(sizes, BTreeSet::from([Some(1), Some(2)]));
}

#[tokio::test]
async fn a_file_is_not_sent_before_its_writer_closes_it() {
    let bench = Bench::new();
    let intake = bench.start(Pace { patience: NEVER, ..PACE });
    idle(&intake).await;
    let mut file = fs::File::create(bench.path("slow")).unwrap();
    std::io::Write::write_all(&mut file, b"half").unwrap();
    // Whoever was later and is done shows that the writer was waited for.
    bench.write("quick", "x");
    bench.eventually(&["quick"]).await;
    assert!(intake.pending() > 0);
    std::io::Write::write_all(&mut file, b" and half").unwrap();
    drop(file);
    bench.eventually(&["quick", "slow"]).await;
    idle(&intake).await;
    assert!(bench.events().await.iter().all(|event| event.key != "uploads/slow" || event.size == Some(13)));
}

#[tokio::test]
async fn a_hidden_name_is_given_time_to_become_another() {
    let bench = Bench::new();
    let intake = bench.start(Pace { settle: NEVER, ..PACE });
    idle(&intake).await;
    bench.write(".photo.jpg.Xy12", "x");
    bench.write("quick", "x");
    bench.eventually(&["quick"]).await;
    pending(&intake, 1).await;
    fs::rename(bench.path(".photo.jpg.Xy12"), bench.path("photo.jpg")).unwrap();
    bench.eventually(&["quick", "photo.jpg"]).await;
    idle(&intake).await;
}

#[tokio::test]
async fn what_no_notification_tells_a_scan_finds() {
    let bench = Bench::new();
    let intake = bench.start(Pace { scan: Duration::from_millis(100), ..PACE });
    bench.write("a", "1");
    bench.eventually(&["a"]).await;
    // A write through a name elsewhere is not told of here.
    fs::hard_link(bench.path("a"), bench.folder.path().join("elsewhere")).unwrap();
    fs::write(bench.folder.path().join("elsewhere"), "22").unwrap();
    let start = Instant::now();
    while bench.queue.live().await.unwrap() < 2 {
        assert!(start.elapsed() < DEADLINE && intake.alive());
    }
}

#[tokio::test]
async fn a_writer_that_never_closes_is_not_waited_for_for_ever() {
    let bench = Bench::new();
    let intake = bench.start(PACE);
    idle(&intake).await;
    let mut file = fs::File::create(bench.path("log")).unwrap();
    std::io::Write::write_all(&mut file, b"line").unwrap();
    bench.eventually(&["log"]).await;
    drop((file, intake));
}

#[tokio::test]
async fn what_is_no_file_is_left_alone() {
    use std::os::unix::ffi::OsStrExt;
    let bench = Bench::new();
    fs::write(bench.folder.path().join("secret"), "x").unwrap();
    symlink(bench.folder.path().join("secret"), bench.path("link")).unwrap();
    symlink(bench.folder.path(), bench.path("folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bench.path("socket")).unwrap();
    fs::write(bench.path("").join(OsStr::from_bytes(b"not utf-8 \xff")), "x").unwrap();
    let intake = bench.start(PACE);
    idle(&intake).await;
    symlink(bench.folder.path().join("secret"), bench.path("later")).unwrap();
    bench.write("file", "x");
    bench.eventually(&["file"]).await;
    idle(&intake).await;
    assert_eq!(bench.queue.live().await.unwrap(), 1);
}

#[tokio::test]
async fn what_was_moved_and_acknowledged_is_not_sent_again() {
    let bench = Bench::new();
    for n in 0..200 {
        bench.write(&n.to_string(), "x");
    }
    let intake = bench.start(PACE);
    let mut done = 0;
    while done < 200 {
        for message in bench.queue.receive(10).await.unwrap() {
            let key = event::parse(&message.body).unwrap().objects.remove(0).key;
            fs::remove_file(bench.folder.path().join(key)).unwrap();
            bench.queue.acknowledge(&message.receipt).await.unwrap();
            done += 1;
        }
    }
    idle(&intake).await;
    assert_eq!(bench.queue.live().await.unwrap(), 0);
}

#[tokio::test]
async fn a_source_that_is_removed_and_comes_back_is_watched_again() {
    let bench = Bench::new();
    let intake = bench.start(PACE);
    idle(&intake).await;
    fs::remove_dir(bench.path("")).unwrap();
    bench.write("a", "x");
    bench.eventually(&["a"]).await;
    bench.write("b", "x");
    bench.eventually(&["a", "b"]).await;
    assert!(intake.alive());
}

#[tokio::test]
async fn nobody_is_kept_waiting_at_the_end() {
    let bench = Bench::new();
    for n in 0..500 {
        bench.write(&n.to_string(), "x");
    }
    let intake = bench.start(Pace { settle: NEVER, patience: NEVER, ..PACE });
    assert!(intake.pending() > 0);
    tokio::time::timeout(DEADLINE, intake.shutdown()).await.unwrap();
    drop(bench.start(PACE));
}
