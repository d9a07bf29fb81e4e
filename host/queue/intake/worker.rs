//! The intake's thread: takes in changes, scans, waits files out, sends.

use std::{
    collections::HashSet,
    ffi::OsStr,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant, SystemTime},
};

use rustix::{fs::Stat, io::Errno};

use super::{
    Shared,
    settling::{Pace, Settling},
    watch::{Change, Signals, Watch},
};
use crate::{
    directory::{Identity, Kind, Lock, Obstacle, STATE, Tree, changed_time},
    event::{self, ObjectEvent},
    queue::local::{LocalQueue, NewMessage},
};

/// Messages sent in one transaction. Enough to make the fsync cheap, and the queue answers others between.
const BATCH: usize = 500;

/// Scans take at most one part in this many of the time, however large the directory.
const SCAN_SHARE: u32 = 20;

/// Files that are waited for at the same time. A scan that finds more stops there and is soon repeated.
const SETTLING: usize = 100_000;

/// Finished files that wait while the queue takes no messages. More are left to a scan when it does again.
const OUTBOX: usize = 20 * BATCH;

/// Directories that wait for their second look.
const NEW_DIRECTORIES: usize = 1_000;

/// How long after a failure to try the queue again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Changes that are taken in before the rest of the work has its turn.
const CHANGES_AT_ONCE: usize = 1_000;

/// Paths that a warning was given for. Beyond, others are left alone without a word.
const WARNINGS: usize = 1_000;

/// The thread's own.
pub(super) struct Worker {
    tree: Arc<Tree>,
    directory: PathBuf,
    /// Without a slash at its end.
    prefix: String,
    bucket: String,
    queue: Arc<LocalQueue>,
    pace: Pace,
    settling: Settling,
    /// Finished files, to be sent.
    outbox: Vec<NewMessage>,
    /// To be looked at a second time then.
    new_directories: Vec<(Instant, String)>,
    watch: Option<Watch>,
    /// The directory that was last tried to watch.
    watched: Option<u64>,
    /// Nothing: now.
    next_scan: Option<Instant>,
    /// After a failure of the queue.
    send_after: Option<Instant>,
    warned: HashSet<String>,
    shared: Arc<Shared>,
    signals: Signals,
}

impl Worker {
    pub(super) fn new(
        pace: Pace,
        lock: &Lock,
        prefix: &str,
        bucket: &str,
        queue: Arc<LocalQueue>,
        shared: Arc<Shared>,
        signals: Signals,
    ) -> Result<Self, Errno> {
        Ok(Self {
            tree: Arc::new(Tree::open(lock.directory())?),
            directory: lock.directory().to_owned(),
            prefix: prefix.trim_end_matches('/').to_owned(),
            bucket: bucket.to_owned(),
            queue,
            pace,
            settling: Settling::new(pace),
            outbox: Vec::new(),
            new_directories: Vec::new(),
            watch: None,
            watched: None,
            next_scan: None,
            send_after: None,
            warned: HashSet::new(),
            shared,
            signals,
        })
    }

    pub(super) fn run(mut self, changes: &Receiver<Change>) {
        while !self.stopped() {
            self.scan_if_due();
            self.look_at_new_directories();
            self.look_at_due();
            self.send();
            self.report();

            let wait = self.next_wake().saturating_duration_since(Instant::now());
            match changes.recv_timeout(wait) {
                Ok(first) => {
                    let mut taken = 0;
                    for change in std::iter::once(first).chain(changes.try_iter()).take(CHANGES_AT_ONCE) {
                        self.take_in(change);
                        taken += 1;
                    }
                    self.report();
                    self.signals.taken(taken);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn scan_if_due(&mut self) {
        if self.signals.overflowed() {
            self.next_scan = None;
            self.report();
            // What is lost from here on is lost before the scan, which finds it.
            self.signals.clear_overflow();
        }
        if self.next_scan.is_none_or(|next| next <= Instant::now()) {
            self.scan_all();
        }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    fn report(&self) {
        let scan = usize::from(self.next_scan.is_none());
        let pending = self.settling.len() + self.outbox.len() + self.new_directories.len() + scan;
        self.shared.pending.store(pending, Ordering::SeqCst);
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let directories = self.new_directories.iter().map(|(at, _)| *at).min();
        let outbox = (!self.outbox.is_empty()).then(|| self.send_after.unwrap_or(now));
        [Some(self.next_scan.unwrap_or(now)), self.settling.next(), directories, outbox]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(now)
    }

    fn take_in(&mut self, change: Change) {
        let now = Instant::now();
        match change {
            Change::Wake => {}
            Change::Rescan => self.next_scan = None,
            Change::WatchLost => {
                tracing::warn!(
                    directory = %self.directory.join(&self.prefix).display(),
                    "the system's limit of watched directories is reached (fs.inotify.max_user_watches); some are \
                     scanned every second instead"
                );
                if let Some(watch) = &mut self.watch {
                    watch.complete = false;
                }
                self.next_scan = None;
            }
            Change::Created(path) => self.with_key(&path, |this, key| this.settling.created(key, now)),
            Change::Touched(path) => self.with_key(&path, |this, key| this.settling.touched(key, now)),
            Change::Opened(path) => self.with_key(&path, |this, key| this.settling.opened(key, now)),
            Change::Written(path) => self.with_key(&path, |this, key| this.settling.written(key, now)),
            Change::Gone(path) => self.with_key(&path, |this, key| {
                this.settling.forget(key);
                if key == this.prefix {
                    // Whatever comes in its place has to be watched anew.
                    this.watched = None;
                    this.next_scan = None;
                }
            }),
            Change::Closed(path) => self.with_key(&path, |this, key| {
                this.settling.forget(key);
                this.look_at(key, |this, key, stat| {
                    // Programs that copy write to a hidden name, close it, and rename it.
                    if hidden(key) {
                        this.settling.found(key, Identity::of(stat), now);
                    } else {
                        this.finished(key, stat);
                    }
                });
            }),
            Change::MovedIn(path) => self.with_key(&path, |this, key| {
                this.settling.forget(key);
                this.look_at(key, Self::finished);
            }),
            Change::NewDirectory(path) => self.with_key(&path, Self::new_directory),
        }
    }

    /// Runs `work` with the key of a path, unless it is none of ours.
    fn with_key(&mut self, path: &Path, work: impl FnOnce(&mut Self, &str)) {
        let Ok(below) = path.strip_prefix(&self.directory) else { return };
        if below.starts_with(STATE) || below == Path::new("") {
            return;
        }
        match below.to_str() {
            Some(key) => work(self, key),
            None => self.warn_once(path.display().to_string(), "its name is not UTF-8, so it cannot be a key"),
        }
    }

    /// Looks at a key and runs `work` if it is a file.
    fn look_at(&mut self, key: &str, work: impl FnOnce(&mut Self, &str, &Stat)) {
        match self.tree.look(key) {
            // It has gone already.
            Ok(None) => self.settling.forget(key),
            Ok(Some(stat)) => match Kind::of(&stat) {
                Kind::File => work(self, key, &stat),
                Kind::Directory => {
                    self.settling.forget(key);
                    self.new_directory(key);
                }
                Kind::SymbolicLink | Kind::Special => {
                    self.settling.forget(key);
                    self.left_alone(key, Kind::of(&stat));
                }
            },
            Err(obstacle) => {
                self.settling.forget(key);
                self.warn_once(key.to_owned(), &obstacle.to_string());
            }
        }
    }

    fn look_at_due(&mut self) {
        for key in self.settling.due(Instant::now()) {
            self.look_at(&key, |this, key, stat| {
                if this.settling.finished(key, Identity::of(stat), Instant::now()) {
                    this.finished(key, stat);
                }
            });
            if self.stopped() {
                return;
            }
        }
    }

    /// A directory appeared, perhaps with all that is in it. Its own watch begins only after we were told of
    /// it, so there is a gap that a second look closes.
    fn new_directory(&mut self, key: &str) {
        self.scan(key);
        if self.new_directories.len() < NEW_DIRECTORIES {
            self.new_directories.push((Instant::now() + self.pace.settle, key.to_owned()));
        } else {
            self.next_scan = None;
        }
    }

    fn look_at_new_directories(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.new_directories).into_iter().partition(|(at, _)| *at <= now);
        self.new_directories = later;
        let due: Vec<(Instant, String)> = due;
        for (_, key) in due {
            self.scan(&key);
        }
    }

    fn scan_all(&mut self) {
        self.watch_if_new();
        let start = Instant::now();
        let prefix = self.prefix.clone();
        let complete = self.scan(&prefix);
        let every = match &self.watch {
            Some(watch) if watch.complete => self.pace.scan,
            _ => self.pace.scan_unwatched,
        };
        let wait = if complete { every.max(start.elapsed() * SCAN_SHARE) } else { TRY_AGAIN };
        self.next_scan = Some(Instant::now() + wait);
        if !complete {
            // Counts as pending as long as something was left out.
            self.new_directories.push((Instant::now() + wait, prefix));
        }
    }

    /// Watches the directory unless that one is watched, or was tried, already.
    fn watch_if_new(&mut self) {
        let root = match self.prefix.is_empty() {
            true => rustix::fs::fstat(self.tree.root()).ok(),
            false => self.tree.look(&self.prefix).ok().flatten(),
        };
        let root = root.map(|stat| stat.st_ino);
        if root == self.watched && root.is_some() {
            return;
        }
        self.watched = root;
        self.watch = None;
        if root.is_none() {
            return;
        }
        let path = self.directory.join(&self.prefix);
        match Watch::start(&path, &self.signals) {
            Ok(watch) => self.watch = Some(watch),
            Err(reason) => tracing::warn!(
                directory = %path.display(), %reason,
                "the directory cannot be watched and is scanned every second instead; raising fs.inotify.max_user_watches \
                 or max_user_instances may help"
            ),
        }
    }

    /// Sees all files below the directory `key`. Answers false if it had to leave some out.
    fn scan(&mut self, key: &str) -> bool {
        let tree = Arc::clone(&self.tree);
        let mut directories = vec![key.to_owned()];
        while let Some(directory) = directories.pop() {
            let mut room = true;
            let listed = tree.list(&directory, |name, stat| {
                let Some(key) = self.key_below(&directory, name) else { return ControlFlow::Continue(()) };
                match Kind::of(stat) {
                    Kind::File => self.seen(&key, stat),
                    Kind::Directory => directories.push(key),
                    kind => self.left_alone(&key, kind),
                }
                room = self.settling.len() < SETTLING && self.outbox.len() < BATCH;
                if room && !self.stopped() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            match listed {
                Ok(()) | Err(Obstacle::Missing { .. }) => {}
                Err(obstacle) => self.warn_once(directory, &obstacle.to_string()),
            }
            if !room || self.stopped() {
                return false;
            }
        }
        true
    }

    fn key_below(&mut self, directory: &str, name: &OsStr) -> Option<String> {
        if directory.is_empty() && name == STATE {
            return None;
        }
        let Some(name) = name.to_str() else {
            let path = self.directory.join(directory).join(name).display().to_string();
            self.warn_once(path, "its name is not UTF-8, so it cannot be a key");
            return None;
        };
        Some(if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") })
    }

    /// A scan met the file. Old ones are finished, unless an event said that somebody writes to them.
    fn seen(&mut self, key: &str, stat: &Stat) {
        if self.settling.knows(key) {
            return;
        }
        let identity = Identity::of(stat);
        let changed = identity.modified_time().max(changed_time(stat));
        let age = changed.and_then(|changed| SystemTime::now().duration_since(changed).ok());
        if age.is_some_and(|age| age >= self.pace.settle) {
            self.finished(key, stat);
        } else {
            self.settling.found(key, identity, Instant::now());
        }
    }

    /// The file is finished: sends it with the next batch.
    fn finished(&mut self, key: &str, stat: &Stat) {
        if self.outbox.len() >= OUTBOX {
            self.next_scan = None;
            return;
        }
        let identity = Identity::of(stat);
        let event = ObjectEvent {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
            size: Some(identity.size),
            etag: Some(identity.to_string()),
            version_id: None,
            event_time: identity.modified_time().and_then(rfc3339),
            event_name: "ObjectCreated:Put".to_owned(),
        };
        let body = event::encode(&event).into();
        self.outbox.push(NewMessage { key: event.key, etag: identity.to_string(), body });
        if self.outbox.len() >= BATCH {
            self.send();
        }
    }

    fn send(&mut self) {
        if self.outbox.is_empty() || self.send_after.is_some_and(|after| Instant::now() < after) {
            return;
        }
        let (tree, batch) = (Arc::clone(&self.tree), Arc::new(std::mem::take(&mut self.outbox)));
        let changed = Arc::new(Mutex::new(Vec::new()));
        let current = {
            let changed = Arc::clone(&changed);
            move |message: &NewMessage| {
                let found = tree.look(&message.key).ok().flatten().filter(|stat| Kind::of(stat) == Kind::File);
                let current = found.is_some_and(|stat| Identity::of(&stat).to_string() == message.etag);
                if !current {
                    changed.lock().unwrap_or_else(PoisonError::into_inner).push(message.key.clone());
                }
                current
            }
        };
        match self.queue.enqueue_blocking(Arc::clone(&batch), current) {
            Ok(_) => {
                if self.send_after.take().is_some() {
                    tracing::info!("the queue takes messages again");
                }
                let changed = std::mem::take(&mut *changed.lock().unwrap_or_else(PoisonError::into_inner));
                for key in changed {
                    self.look_at(&key, |this, key, stat| {
                        this.settling.found(key, Identity::of(stat), Instant::now());
                    });
                }
            }
            Err(reason) => {
                if self.send_after.is_none() {
                    tracing::warn!(%reason, "files wait, as the queue takes no messages; trying again every second");
                }
                self.send_after = Some(Instant::now() + TRY_AGAIN);
                self.outbox = Arc::unwrap_or_clone(batch);
            }
        }
    }

    fn left_alone(&mut self, key: &str, kind: Kind) {
        self.warn_once(key.to_owned(), &format!("it is {kind}"));
    }

    fn warn_once(&mut self, path: String, why: &str) {
        if self.warned.len() < WARNINGS && !self.warned.contains(&path) {
            tracing::warn!(path, "left alone: {why}");
            self.warned.insert(path);
        }
    }
}

fn hidden(key: &str) -> bool {
    key.rsplit('/').next().is_some_and(|name| name.starts_with('.'))
}

/// Nothing for times that four digits for the year cannot say.
fn rfc3339(time: SystemTime) -> Option<String> {
    /// The first second of the year 10,000.
    const TOO_LATE: Duration = Duration::from_secs(253_402_300_800);
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since < TOO_LATE).then(|| humantime::format_rfc3339_millis(time).to_string())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicBool, AtomicUsize},
    };

    use super::*;
    use crate::queue::{intake::watch, local::Clock};

    /// A worker over a whole directory, which works only when it is told to.
    struct Bench {
        worker: Worker,
        changes: Receiver<Change>,
        folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let lock = Lock::acquire(folder.path()).unwrap();
            let queue = LocalQueue::open(&lock.state().join("queue.db"), TRY_AGAIN, Clock::system()).unwrap();
            let shared = Arc::new(Shared { stop: AtomicBool::new(false), pending: AtomicUsize::new(1) });
            let (signals, changes) = watch::channel();
            let pace = Pace { settle: Duration::ZERO, ..Pace::default() };
            let worker = Worker::new(pace, &lock, "", "bucket", Arc::new(queue), shared, signals).unwrap();
            Self { worker, changes, folder }
        }

        fn live(&self) -> usize {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(self.worker.queue.live()).unwrap()
        }
    }

    #[test]
    fn what_changed_or_went_before_it_was_sent_is_not_sent() {
        let mut bench = Bench::new();
        for key in ["same", "changed", "gone"] {
            let path = bench.folder.path().join(key);
            fs::write(&path, "x").unwrap();
            bench.worker.finished(key, &rustix::fs::lstat(&path).unwrap());
        }
        fs::write(bench.folder.path().join("changed"), "longer").unwrap();
        fs::remove_file(bench.folder.path().join("gone")).unwrap();
        bench.worker.send();
        bench.worker.report();
        let pending = bench.worker.shared.pending.load(Ordering::SeqCst);
        assert_eq!(pending, 2, "the changed one and the first scan");
        assert_eq!(bench.live(), 1);
    }

    #[test]
    fn a_scan_makes_up_for_changes_that_found_no_room() {
        let mut bench = Bench::new();
        bench.worker.next_scan = Some(Instant::now() + Duration::from_secs(3_600));
        fs::write(bench.folder.path().join("a"), "x").unwrap();
        bench.worker.scan_if_due();
        bench.worker.send();
        assert_eq!(bench.live(), 0);

        while !bench.worker.signals.overflowed() {
            bench.worker.signals.wake();
        }
        assert_eq!(bench.worker.signals.waiting(), bench.changes.try_iter().count() + 1);
        bench.worker.scan_if_due();
        bench.worker.send();
        assert_eq!(bench.live(), 1);
        assert!(!bench.worker.signals.overflowed());
    }

    #[test]
    fn a_new_directory_is_looked_at_twice() {
        let mut bench = Bench::new();
        let directory = bench.folder.path().join("new");
        fs::create_dir_all(directory.join("deep")).unwrap();
        fs::write(directory.join("deep/early"), "x").unwrap();
        bench.worker.take_in(Change::NewDirectory(directory.clone()));
        bench.worker.send();
        assert_eq!(bench.live(), 1);

        // After the first look, and before the system told of anything in it.
        fs::write(directory.join("late"), "x").unwrap();
        bench.worker.look_at_new_directories();
        bench.worker.send();
        assert_eq!(bench.live(), 2);
        assert!(bench.worker.new_directories.is_empty());
    }

    #[test]
    fn a_source_that_went_away_is_watched_anew() {
        let mut bench = Bench::new();
        bench.worker.prefix = "uploads".to_owned();
        bench.worker.watched = Some(1);
        bench.worker.next_scan = Some(Instant::now() + Duration::from_secs(3_600));
        let gone = bench.worker.directory.join("uploads");
        bench.worker.take_in(Change::Gone(gone));
        assert_eq!((bench.worker.watched, bench.worker.next_scan), (None, None));
    }

    #[test]
    fn a_queue_that_takes_nothing_is_waited_for() {
        let mut bench = Bench::new();
        bench.worker.send_after = Some(Instant::now() + Duration::from_secs(3_600));
        for n in 0..2 * OUTBOX {
            fs::write(bench.folder.path().join(n.to_string()), "").unwrap();
        }
        bench.worker.scan_all();
        assert!(bench.worker.outbox.len() <= OUTBOX);
        bench.worker.report();
        assert!(bench.worker.shared.pending.load(Ordering::SeqCst) > bench.worker.outbox.len(), "the rest");
        assert_eq!(bench.live(), 0);

        bench.worker.send_after = None;
        bench.worker.send();
        bench.worker.scan_all();
        bench.worker.send();
        assert_eq!(bench.live(), 2 * OUTBOX);
    }
}
