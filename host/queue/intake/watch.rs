//! The system's notifications, as changes that the intake understands.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use notify::{
    Config, ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode},
};

/// Changes that wait for the intake. When more come a scan finds what they were about.
const WAITING: usize = 16_384;

/// What happened to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A name appeared that is no directory.
    Created(PathBuf),
    /// A file's time, owner or mode was set.
    Touched(PathBuf),
    /// A file was opened, to read or to write.
    Opened(PathBuf),
    /// A file was written to.
    Written(PathBuf),
    /// A file was closed by somebody who could write to it.
    Closed(PathBuf),
    /// A file or a directory was renamed to this.
    MovedIn(PathBuf),
    /// A directory appeared.
    NewDirectory(PathBuf),
    /// A name went away.
    Gone(PathBuf),
    /// Some notifications were lost.
    Rescan,
    /// Some directories are not watched.
    WatchLost,
    /// Nothing: the owner wants attention.
    Wake,
}

/// The way from the notifications to the intake.
#[derive(Debug, Clone)]
pub(super) struct Signals {
    changes: SyncSender<Change>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Changes on their way, counted before they are sent.
    waiting: AtomicUsize,
    /// Some found no room.
    overflow: AtomicBool,
}

pub(super) fn channel() -> (Signals, Receiver<Change>) {
    let (changes, receiver) = sync_channel(WAITING);
    (Signals { changes, shared: Arc::default() }, receiver)
}

impl Signals {
    pub(super) fn send(&self, change: Change) {
        self.shared.waiting.fetch_add(1, Ordering::SeqCst);
        if self.changes.try_send(change).is_err() {
            self.shared.overflow.store(true, Ordering::SeqCst);
            self.shared.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub(super) fn wake(&self) {
        self.send(Change::Wake);
    }

    /// Changes that were sent and are not [`Signals::taken`], one more if some were lost.
    pub(super) fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::SeqCst) + usize::from(self.shared.overflow.load(Ordering::SeqCst))
    }

    /// So many have had their effect.
    pub(super) fn taken(&self, changes: usize) {
        self.shared.waiting.fetch_sub(changes, Ordering::SeqCst);
    }

    /// Whether changes were lost.
    pub(super) fn overflowed(&self) -> bool {
        self.shared.overflow.load(Ordering::SeqCst)
    }

    /// A scan will find what they were about.
    pub(super) fn clear_overflow(&self) {
        self.shared.overflow.store(false, Ordering::SeqCst);
    }
}

/// Notifications flow until it is dropped.
pub(super) struct Watch {
    _watcher: RecommendedWatcher,
    /// Whether all directories are watched.
    pub(super) complete: bool,
}

impl Watch {
    pub(super) fn start(directory: &Path, signals: &Signals) -> notify::Result<Self> {
        let signals = signals.clone();
        let handler = move |event: notify::Result<Event>| match event {
            Ok(event) => changes(event).for_each(|change| signals.send(change)),
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => signals.send(Change::WatchLost),
            Err(_) => signals.send(Change::Rescan),
        };
        let mut watcher = RecommendedWatcher::new(handler, Config::default().with_follow_symlinks(false))?;
        watcher.watch(directory, RecursiveMode::Recursive)?;
        Ok(Self { _watcher: watcher, complete: true })
    }
}

fn changes(event: Event) -> impl Iterator<Item = Change> {
    let rescan = event.need_rescan();
    let change: Option<fn(PathBuf) -> Change> = match event.kind {
        EventKind::Create(CreateKind::Folder) => Some(Change::NewDirectory),
        EventKind::Create(_) => Some(Change::Created),
        EventKind::Access(AccessKind::Open(_)) => Some(Change::Opened),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Change::Closed),
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => Some(Change::Gone),
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Change::MovedIn),
        // Told before as two.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
        // Where the system does not tell which name it was.
        EventKind::Modify(ModifyKind::Name(_)) => Some(Change::MovedIn),
        // A new time makes it another version of the file; a new owner does no harm.
        EventKind::Modify(ModifyKind::Metadata(_)) => Some(Change::Touched),
        EventKind::Modify(_) | EventKind::Any => Some(Change::Written),
        EventKind::Other => None,
    };
    rescan
        .then_some(Change::Rescan)
        .into_iter()
        .chain(change.map(|change| event.paths.into_iter().map(change)).into_iter().flatten())
}
