//! Follows the plugin directory and swaps the catalog.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

use super::{
    Catalog,
    compiling::Compiling,
    load::{self, FIRST_SETTLED, RegistryError, Source, UNSETTLED},
    releases::Releases,
};
use crate::{
    config::Trust,
    plugin::{Compiler, Engine},
};

/// Events that come closer together than this belong to one change.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// How often the directory is scanned without an event: file systems of a network have none, and a
/// directory that is replaced as a whole takes its watch with it.
const RESCAN: Duration = Duration::from_secs(5);

/// For how long the start waits for files that are being compiled: longer than the largest language runtimes take,
/// since until then their objects have no plugin.
const FIRST_COMPILED: Duration = Duration::from_secs(60);

/// The current catalog, kept up to date until this is dropped.
pub struct Registry {
    catalog: watch::Receiver<Arc<Catalog>>,
    _loader: Option<Loader>,
}

impl Registry {
    /// The three plugins that the binary carries. Blocks while they are compiled.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn built_in(engine: &Arc<Engine>, compiler: &Compiler, trust: &Trust) -> Result<Self, RegistryError> {
        Ok(Self::fixed(load::load_built_in(engine, compiler, trust)?))
    }

    /// A catalog that never changes.
    #[must_use]
    pub fn fixed(catalog: Catalog) -> Self {
        Self { catalog: watch::channel(Arc::new(catalog)).1, _loader: None }
    }

    /// Loads every `NAME.wasm` of the directory, and from then on follows its changes on a thread of its
    /// own. Blocks until the first catalog is there, for as long as compiling it takes, within a bound: what then is
    /// not ready comes later. `compiler` is stopped when this is dropped. Without `releases` every file is the
    /// stable version of its plugin, and canaries and shadows are loaded but not called.
    ///
    /// # Errors
    /// When the directory cannot be listed, or not trusted. A file in it that is no plugin is not an error: it is
    /// reported and left out.
    pub fn watch(
        engine: Arc<Engine>,
        compiler: Compiler,
        directory: &Path,
        trust: &Trust,
        releases: Option<Releases>,
    ) -> Result<Self, RegistryError> {
        let (wake, woken) = sync_channel(1);
        let decided = wake.clone();
        let releases = releases.map(|releases| releases.on_decision(move || drop(decided.try_send(Wake::Look))));
        // The watch is there before the first scan, so no change can fall between the two.
        let by_hand = releases.as_ref().map(Releases::folder);
        let watcher = start_watcher(wake.clone(), [directory].into_iter().chain(by_hand));
        let source = Source { engine, compiler, directory: directory.to_owned(), trust: trust.clone() };
        let tell = wake.clone();
        // A full channel means that somebody is about to look.
        let compiling = Compiling::start(&source, move || drop(tell.try_send(Wake::Look)));
        let compiling = compiling.map_err(RegistryError::Thread)?;
        let (publish, catalog) = watch::channel(Arc::default());
        let (ready, first) = sync_channel(1);
        let follow = Follow { source, compiling, releases, publish, ready: Some(ready) };
        let thread = thread::Builder::new().name("plugins".into()).spawn(move || follow.run(&woken));
        let loader = Loader { wake, _watcher: watcher, thread: Some(thread.map_err(RegistryError::Thread)?) };
        match first.recv() {
            Ok(first) => first?,
            Err(_) => return Err(RegistryError::Thread(io::Error::other("it panicked, see the log"))),
        }
        Ok(Self { catalog, _loader: Some(loader) })
    }

    /// Follows the current catalog.
    #[must_use]
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.clone()
    }
}

enum Wake {
    Look,
    Stop,
}

/// Owns the thread; ends and joins it when dropped.
struct Loader {
    wake: SyncSender<Wake>,
    _watcher: Option<RecommendedWatcher>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Waits for room behind a pending `Look`; fails only when the thread has ended already.
        let _ = self.wake.send(Wake::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that loads plugins panicked");
        }
    }
}

fn start_watcher<'p>(
    wake: SyncSender<Wake>,
    mut folders: impl Iterator<Item = &'p Path>,
) -> Option<RecommendedWatcher> {
    let started = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files causes access events, which would make this go round for ever.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            // A full channel means that a look is already due.
            let _ = wake.try_send(Wake::Look);
        }
    })
    .and_then(|mut watcher| {
        folders.try_for_each(|folder| watcher.watch(folder, RecursiveMode::NonRecursive))?;
        Ok(watcher)
    });
    started
        .inspect_err(|error| {
            tracing::warn!(%error, rescan_seconds = RESCAN.as_secs(), "cannot watch the plugin directory, scanning it instead");
        })
        .ok()
}

/// What the thread needs.
struct Follow {
    source: Source,
    compiling: Compiling,
    releases: Option<Releases>,
    publish: watch::Sender<Arc<Catalog>>,
    /// Where somebody waits for the first catalog.
    ready: Option<SyncSender<Result<(), RegistryError>>>,
}

impl Follow {
    fn run(mut self, woken: &Receiver<Wake>) {
        let started = Instant::now();
        let mut unreadable = false;
        loop {
            let mut catalog = Catalog::clone(&self.publish.borrow());
            for (file, compiled) in self.compiling.take_done() {
                catalog.complete(&file, compiled);
            }
            let patience = match self.source.scan(&catalog) {
                Ok(scan) => {
                    unreadable = false;
                    catalog = scan.catalog;
                    self.compiling.want(scan.uncompiled);
                    if scan.unsettled { UNSETTLED } else { RESCAN }
                }
                Err(error) => {
                    // The first catalog is the one thing that the host cannot do without.
                    if let Some(ready) = self.ready.take() {
                        let _ = ready.send(Err(error));
                        return;
                    }
                    if !std::mem::replace(&mut unreadable, true) {
                        tracing::error!(%error, "cannot take plugins from the directory, keeping those loaded before");
                    }
                    RESCAN
                }
            };
            self.publish(catalog);
            let due = self.first_is_due(started, patience == UNSETTLED);
            match woken.recv_timeout(due.map_or(patience, |due| patience.min(due))) {
                // Where a file has just been compiled there is nothing to wait for.
                Ok(Wake::Look) if self.compiling.has_done() => {}
                Ok(Wake::Look) => thread::sleep(DEBOUNCE),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn publish(&self, mut catalog: Catalog) {
        let current = Arc::clone(&self.publish.borrow());
        if let Some(releases) = &self.releases {
            releases.apply(&self.source, &mut catalog, &current);
        }
        let catalog = Arc::new(catalog);
        self.publish.send_replace(Arc::clone(&catalog));
        report(&current, &catalog);
    }

    /// Lets go whoever waits for the first catalog once all is in it or it has taken too long. Answers how long that
    /// may yet be.
    fn first_is_due(&mut self, started: Instant, unsettled: bool) -> Option<Duration> {
        let bound = match (unsettled, self.compiling.is_idle()) {
            (true, _) => FIRST_SETTLED,
            (false, false) => FIRST_COMPILED,
            (false, true) => Duration::ZERO,
        };
        let left = bound.saturating_sub(started.elapsed());
        let ready = if left.is_zero() { self.ready.take() } else { None };
        if let Some(ready) = ready {
            // Whoever does not wait any more has no use for it.
            let _ = ready.send(Ok(()));
        }
        self.ready.is_some().then_some(left)
    }
}

/// One log event for each thing that has changed.
fn report(old: &Catalog, new: &Catalog) {
    for (name, entry) in new.iter() {
        let before = old.entries.get(name);
        if let Some(plugin) = &entry.plugin
            && before.and_then(|entry| entry.plugin.as_ref()).is_none_or(|before| before.digest != plugin.digest)
        {
            tracing::info!(plugin = name, digest = plugin.digest.short(), "plugin loaded");
        }
        if let Some(refused) = &entry.refused
            && before.and_then(|entry| entry.refused.as_ref()) != Some(refused)
        {
            let in_use = entry.plugin.as_ref().map(|plugin| plugin.digest.short());
            tracing::error!(plugin = name, reason = refused.reason, in_use, "plugin refused");
        }
    }
    for (name, entry) in old.iter() {
        if entry.plugin.is_some() && new.get(name).is_none() {
            tracing::info!(plugin = name, "plugin unloaded");
        }
    }
}
