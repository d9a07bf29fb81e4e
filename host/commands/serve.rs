//! `gristmill dev` and `gristmill run`: wire, run, drain.

use std::{path::Path, process::ExitCode, sync::Arc, thread, time::Duration};

use indicatif::ProgressBar;
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{Fatal, LOCAL_BUCKET};
use crate::{
    circuit::Circuits,
    config::{Bucket, Config, Place, Plugins},
    directory::Lock,
    io::BoxFuture,
    job::{Context, SHADOWS, Shadows},
    lanes::{self, Lanes},
    plugin::{Cache, Compiler, Engine, Granted},
    queue::{
        DeadMessage, Queue,
        intake::Intake,
        local::{Clock, LocalQueue},
    },
    registry::{Catalog, Registry, Releases},
    report::{Reporter, Style, Summary},
    store::{Store, local::LocalStore},
    text,
    worker::{Shutdown, Worker},
};

/// Threads for everything but guests: polling, leases, the commit protocol. They only wait.
const CONTROL_THREADS: usize = 2;

/// Reports that may wait to be shown before jobs wait for that.
const REPORTS: usize = 1_024;

/// How often `--until-idle` looks whether anything is left, in a directory and in a queue that counts
/// requests.
const IDLE_CHECK: Duration = Duration::from_millis(20);
const REMOTE_IDLE_CHECK: Duration = Duration::from_secs(1);

/// How often in a row SQS, whose numbers are approximate, has to say that nothing is left.
const REMOTE_IDLE_LOOKS: u32 = 3;

/// Dead letters of earlier runs that are shown at the start, and what is shown of each text.
const SHOWN_LETTERS: usize = 10;
const SHOWN: usize = 500;

/// How long the end waits for what was given up: guests, and a report that nobody reads.
const THREADS_END: Duration = Duration::from_secs(1);

/// Serves until told to stop, or with `until_idle` until nothing is left. What happened is told on standard
/// output in the given style. Plugins are compiled by `compiler`, which keeps code where a host without a directory of
/// its own does.
///
/// # Errors
/// When something is missing that the host cannot do without.
pub fn serve(
    config: Config,
    until_idle: bool,
    compiler: Compiler,
    style: Style,
    bar: ProgressBar,
) -> Result<ExitCode, Fatal> {
    let failed = |error| Fatal::Failed(format!("cannot start threads: {error}"));
    let mut control = Builder::new_multi_thread();
    control.worker_threads(CONTROL_THREADS).thread_name("control").on_thread_start(lanes::moments).enable_all();
    let control = control.build().map_err(failed)?;
    // Guests compute; on threads of their own they cannot hold up a lease or a poll.
    let guests = lanes::Threads::start(thread::available_parallelism().map_or(1, usize::from)).map_err(failed)?;
    let how = How { until_idle, style, bar, lanes: guests.lanes(control.handle().clone()) };
    let served = match config.place.clone() {
        Place::Directory(directory) => control.block_on(serve_directory(config, &directory, compiler, how)),
        Place::Bucket(bucket) => control.block_on(serve_bucket(config, bucket, compiler, how)),
    };
    guests.shutdown_timeout(THREADS_END);
    control.shutdown_timeout(THREADS_END);
    Ok(if served?.has_dead_letters() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// What the command line has to say, and where guests run.
struct How {
    until_idle: bool,
    style: Style,
    bar: ProgressBar,
    lanes: Arc<Lanes>,
}

/// Local mode: the directory is the bucket, SQLite is the queue.
async fn serve_directory(config: Config, directory: &Path, compiler: Compiler, how: How) -> Result<Summary, Fatal> {
    let lock = Arc::new(Lock::acquire(directory).map_err(Fatal::failed)?);
    let store = LocalStore::open(&lock, &config.prefixes()).map_err(Fatal::failed)?;
    let queue = LocalQueue::open(&lock.state().join("queue.db"), config.visibility_timeout, Clock::system());
    let queue = Arc::new(queue.map_err(Fatal::failed)?);
    // We hold the lock, so whoever had received these is dead.
    queue.release_all().await.map_err(Fatal::failed)?;
    let cache = Cache::open(&lock.state().join("cache"), &lock.state().join("cache.key")).map_err(Fatal::failed)?;
    let registry = registry(&config, compiler.with_cache(Some(cache)))?;
    warn_of_dead_letters(&queue).await?;

    let bucket = LOCAL_BUCKET.to_owned();
    let intake = Intake::start(&lock, &config.source_prefix, &bucket, Arc::clone(&queue)).map_err(Fatal::failed)?;
    let intake = Arc::new(intake);
    let left: Left = {
        let (queue, intake) = (Arc::clone(&queue), Arc::clone(&intake));
        Arc::new(move || {
            let (queue, intake) = (Arc::clone(&queue), Arc::clone(&intake));
            Box::pin(async move {
                if !intake.alive() {
                    return Some(0);
                }
                // In this order: a file leaves the intake only after it is in the queue.
                let pending = intake.pending();
                Some((queue.live().await.ok()? + pending) as u64)
            })
        })
    };
    let idle = how.until_idle.then_some(Idle { check: IDLE_CHECK, looks: 1 });
    let summary = run(config, bucket, store, queue, &registry, how, left, idle).await;
    if !intake.alive() {
        return Err(Fatal::Failed("the intake of files stopped working, see the log".to_owned()));
    }
    if let Some(intake) = Arc::into_inner(intake) {
        intake.shutdown().await;
    }
    summary
}

/// SQS and S3.
async fn serve_bucket(mut config: Config, bucket: Bucket, compiler: Compiler, how: How) -> Result<Summary, Fatal> {
    let registry = registry(&config, compiler)?;
    let (queue, store) = super::connect(&bucket, &config).await?;
    let queue = Arc::new(if how.until_idle { queue.with_short_polls() } else { queue });
    if let Some(most) = queue.max_receives().filter(|_| config.has_default_attempts) {
        config.retry.max_attempts = most;
    }
    let left: Left = {
        let queue = Arc::clone(&queue);
        Arc::new(move || {
            let queue = Arc::clone(&queue);
            Box::pin(async move { queue.left().await.ok() })
        })
    };
    let idle = how.until_idle.then_some(Idle { check: REMOTE_IDLE_CHECK, looks: REMOTE_IDLE_LOOKS });
    run(config, bucket.name, store, queue, &registry, how, left, idle).await
}

/// How many messages are left, as far as that is known.
type Left = Arc<dyn Fn() -> BoxFuture<'static, Option<u64>> + Send + Sync>;

/// When to take the work for done.
struct Idle {
    /// How often to look whether anything is left.
    check: Duration,
    /// After so many looks in a row that found nothing.
    looks: u32,
}

/// What both modes have in common.
#[expect(clippy::too_many_arguments, reason = "it is called from two places, which differ in every one of them")]
async fn run<Q: Queue, S: Store>(
    config: Config,
    bucket: String,
    store: S,
    queue: Arc<Q>,
    registry: &Registry,
    how: How,
    left: Left,
    idle: Option<Idle>,
) -> Result<Summary, Fatal> {
    let catalog = registry.catalog();
    warn_of_missing_plugins(&config, &catalog.borrow());
    let shutdown = Shutdown::default();
    let signals = tokio::spawn(follow_signals(shutdown.clone()));
    let (reports, shown) = mpsc::channel(REPORTS);
    // A run that is to end cannot wait for a plugin to be replaced.
    let circuits = Circuits::new((!how.until_idle).then_some(config.probe_interval));
    let context = Context {
        store: Arc::new(store),
        bucket,
        config: Arc::new(config),
        catalog,
        lanes: Arc::clone(&how.lanes),
        circuits,
        shadows: Shadows::default(),
    };
    let worker = Worker::new(queue, Arc::new(context), reports);

    let worker = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { worker.run(&shutdown).await }
    });
    // Of its own: it waits for whoever reads standard output.
    let shown = tokio::spawn({
        let left = Arc::clone(&left);
        Reporter::new(how.style, how.bar).run(shown, async move || left().await)
    });
    if let Some(idle) = idle {
        wait_until_idle(&idle, &left, &shutdown).await;
    }
    worker.await.map_err(Fatal::failed)?;
    // Perhaps nobody reads standard output any more. Whoever does gets the rest.
    let given_up = async {
        shutdown.now.cancelled().await;
        tokio::time::sleep(THREADS_END).await;
    };
    let shown = tokio::select! {
        shown = shown => shown.map_err(Fatal::failed)?,
        () = given_up => return Err(Fatal::Failed("stopped before everything was reported".to_owned())),
    };
    signals.abort();
    shown.map_err(|error| Fatal::Failed(format!("cannot write to standard output: {error}")))
}

/// Begins the drain once nothing is left, and not before.
async fn wait_until_idle(idle: &Idle, left: &Left, shutdown: &Shutdown) {
    let mut looks = 0;
    while !shutdown.drain.is_cancelled() {
        looks = if left().await == Some(0) { looks + 1 } else { 0 };
        if looks >= idle.looks {
            shutdown.drain.cancel();
        }
        tokio::select! {
            () = shutdown.drain.cancelled() => {}
            () = tokio::time::sleep(idle.check) => {}
        }
    }
}

fn registry(config: &Config, compiler: Compiler) -> Result<Registry, Fatal> {
    let granted = Granted::new(config.grants.clone()).map_err(Fatal::failed)?;
    let engine = Engine::granting(config.slots + SHADOWS, granted).map_err(Fatal::failed)?;
    match &config.plugins {
        Plugins::BuiltIn => Registry::built_in(&engine, &compiler, &config.trust),
        Plugins::Directory(plugins) => Registry::watch(engine, compiler, plugins, &config.trust, releases(config)?),
    }
    .map_err(Fatal::failed)
}

/// Where releases of plugins are decided and remembered.
fn releases(config: &Config) -> Result<Option<Releases>, Fatal> {
    let Some(folder) = super::releases(config) else {
        tracing::warn!("nowhere to remember releases of plugins, so canaries are not tried: set `state` or HOME");
        return Ok(None);
    };
    Releases::open(&folder, config.canaries.clone()).map(Some).map_err(Fatal::failed)
}

/// Says what of the last runs needs somebody.
async fn warn_of_dead_letters(queue: &LocalQueue) -> Result<(), Fatal> {
    for DeadMessage { id, letter, .. } in queue.dead_letters(SHOWN_LETTERS).await.map_err(Fatal::failed)? {
        let key = text::printable(letter.key.as_deref().unwrap_or(&id), SHOWN);
        let reason = text::printable(&letter.reason, SHOWN);
        tracing::warn!(key, reason, "dead-lettered by an earlier run, change or `touch` the file to try it again");
    }
    Ok(())
}

/// Says what of the configuration will need somebody.
fn warn_of_missing_plugins(config: &Config, catalog: &Catalog) {
    let uses = config.routes.iter().flat_map(|route| &route.uses);
    for used in uses.filter(|used| !config.has_default_routes && catalog.get(&used.plugin).is_none()) {
        let plugin = &used.plugin;
        tracing::error!(
            plugin,
            "a route names a plugin that is not loaded, its objects are retried and then dead-lettered"
        );
    }
}

/// The first SIGTERM or SIGINT drains, the second stops at once.
async fn follow_signals(shutdown: Shutdown) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot listen for signals, they end the host without a drain");
        return;
    };
    for stop in [&shutdown.drain, &shutdown.now] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    }
}
