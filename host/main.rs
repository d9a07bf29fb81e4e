//! `gristmill`: telemetry, configuration, wiring, run, drain, exit code.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use gristmill::{
    cli::{Cli, Command, ConfigFile, Serve},
    commands::{self, Fatal},
    config::{self, Config, Overrides, Place, Plugins, Sources},
    directory::Lock,
    job::Context,
    plugin::{Cache, Engine},
    queue::{
        intake::Intake,
        local::{Clock, LocalQueue},
    },
    registry::{Catalog, Registry},
    report::{Reporter, Style, Summary, progress_bar},
    store::local::LocalStore,
    telemetry, text,
    worker::{Shutdown, Worker},
};
use indicatif::ProgressBar;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Threads for everything but guests: polling, leases, the commit protocol. They only wait.
const CONTROL_THREADS: usize = 2;

/// Reports that may wait to be shown before jobs wait for that.
const REPORTS: usize = 1_024;

/// How often `--until-idle` looks whether anything is left.
const IDLE_CHECK: Duration = Duration::from_millis(20);

/// Dead letters of earlier runs that are shown at the start, and what is shown of each text.
const SHOWN_LETTERS: usize = 10;
const SHOWN: usize = 500;

/// How long the end waits for what was given up: guests, and a report that nobody reads.
const THREADS_END: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli) {
        Ok(code) => code,
        Err(fatal) => {
            // Where standard error is closed there is nobody to tell.
            let _ = writeln!(io::stderr(), "gristmill: {fatal}");
            fatal.code()
        }
    }
}

/// Help and version are no mistakes; everything else is wrong usage (EX_USAGE of sysexits.h).
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(64),
    }
}

fn run(cli: Cli) -> Result<ExitCode, Fatal> {
    let style = match &cli.command {
        Command::Dev { serve, .. } if !serve.json => Style::Table,
        Command::Dev { serve, .. } | Command::Run { serve } if serve.json => Style::Json,
        _ => Style::Log,
    };
    // At a terminal the table tells what happens to objects; the log tells the rest.
    let default_filter = if style == Style::Log {
        "warn,gristmill=info,plugin=info"
    } else {
        "warn,gristmill::registry=info,plugin=info"
    };
    let bar = progress_bar(style);
    let filter = cli.log.as_deref().unwrap_or(default_filter);
    // See no-color.org: set to nothing counts as not set.
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = io::stderr().is_terminal() && !no_colour;
    telemetry::init(cli.log_format, filter, colour, bar.clone()).map_err(Fatal::Usage)?;

    match cli.command {
        Command::Dev { directory, serve } => {
            let config = dev_config(&directory, &serve)?;
            serve_until_told(config, serve.until_idle, style, bar)
        }
        Command::Run { serve } => {
            let config = load_config(&serve.config, overrides(&serve, None))?;
            serve_until_told(config, serve.until_idle, style, bar)
        }
        Command::Check { config } => commands::check::check(load_config(&config, Overrides::default())),
        Command::Plugin(command) => commands::plugin::run(command, user_cache().as_ref()),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "gristmill", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// `dev` reads DIR/gristmill.toml when it is there and nothing else was named.
fn dev_config(directory: &Path, serve: &Serve) -> Result<Config, Fatal> {
    fs::create_dir_all(directory)
        .map_err(|error| Fatal::Failed(format!("cannot make {}: {error}", directory.display())))?;
    let beside = directory.join("gristmill.toml");
    let file = ConfigFile { config: serve.config.config.clone().or_else(|| beside.is_file().then_some(beside)) };
    load_config(&file, overrides(serve, Some(directory.to_owned())))
}

fn overrides(serve: &Serve, directory: Option<PathBuf>) -> Overrides {
    Overrides { directory, plugins: serve.plugins.clone(), slots: serve.slots }
}

fn load_config(file: &ConfigFile, overrides: Overrides) -> Result<Config, Fatal> {
    let usual = Path::new("gristmill.toml");
    let path = match &file.config {
        Some(path) => Some(path.as_path()),
        None => (overrides.directory.is_none() && usual.is_file()).then_some(usual),
    };
    let read = |path: &Path| match fs::read_to_string(path) {
        Ok(text) => Ok((path.to_owned(), text)),
        Err(error) => Err(Fatal::Config(format!("{}: cannot be read: {error}", path.display()))),
    };
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let sources = Sources {
        file: path.map(read).transpose()?,
        env,
        overrides,
        cores: thread::available_parallelism().map_or(1, usize::from),
        is_directory: Path::is_dir,
    };
    config::load(sources).map_err(|errors| Fatal::Config(errors.to_string()))
}

/// Where commands without a directory of their own keep compiled code; nowhere if that cannot be had.
fn user_cache() -> Option<Cache> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Cache::open(&base.join("gristmill")).inspect_err(|error| tracing::warn!(%error, "compiling without a cache")).ok()
}

fn serve_until_told(config: Config, until_idle: bool, style: Style, bar: ProgressBar) -> Result<ExitCode, Fatal> {
    let runtime = |name: &str, threads: usize| -> Result<Runtime, Fatal> {
        let built = Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build();
        built.map_err(|error| Fatal::Failed(format!("cannot start threads: {error}")))
    };
    let control = runtime("control", CONTROL_THREADS)?;
    // Guests compute; on threads of their own they cannot hold up a lease or a poll.
    let guests = runtime("guests", thread::available_parallelism().map_or(1, usize::from))?;
    let served = match config.place.clone() {
        Place::Directory(directory) => {
            control.block_on(serve_directory(config, &directory, guests.handle(), until_idle, style, bar))
        }
        Place::Bucket { bucket, .. } => Err(Fatal::Config(format!(
            "bucket `{bucket}`: this release has only local mode; set `directory` instead, or use `gristmill dev DIR`"
        ))),
    };
    guests.shutdown_timeout(THREADS_END);
    control.shutdown_timeout(THREADS_END);
    Ok(if served?.has_dead_letters() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Local mode: the directory is the bucket, SQLite is the queue.
async fn serve_directory(
    config: Config,
    directory: &Path,
    guests: &Handle,
    until_idle: bool,
    style: Style,
    bar: ProgressBar,
) -> Result<Summary, Fatal> {
    let lock = Arc::new(Lock::acquire(directory).map_err(Fatal::failed)?);
    let store = LocalStore::open(&lock, &config.prefixes()).map_err(Fatal::failed)?;
    let queue = LocalQueue::open(&lock.state().join("queue.db"), config.visibility_timeout, Clock::system());
    let queue = Arc::new(queue.map_err(Fatal::failed)?);
    // We hold the lock, so whoever had received these is dead.
    queue.release_all().await.map_err(Fatal::failed)?;

    let engine = Engine::new(config.slots).map_err(Fatal::failed)?;
    let cache = Cache::open(&lock.state().join("cache")).map_err(Fatal::failed)?;
    let registry = match &config.plugins {
        Plugins::BuiltIn => Registry::built_in(&engine, Some(&cache)),
        Plugins::Directory(plugins) => Registry::watch(engine, Some(cache), plugins),
    };
    let registry = registry.map_err(Fatal::failed)?;
    let catalog = registry.catalog();
    let now = Arc::clone(&catalog.borrow());
    warn_of_trouble(&config, &now, &queue).await?;

    let bucket = commands::LOCAL_BUCKET.to_owned();
    let intake = Intake::start(&lock, &config.source_prefix, &bucket, Arc::clone(&queue)).map_err(Fatal::failed)?;
    let intake = Arc::new(intake);
    let shutdown = Shutdown::default();
    let signals = tokio::spawn(follow_signals(shutdown.clone()));
    let (reports, shown) = mpsc::channel(REPORTS);
    let context = Context { store: Arc::new(store), bucket, config: Arc::new(config), catalog, guests: guests.clone() };
    let worker = Worker::new(Arc::clone(&queue), Arc::new(context), reports);

    let worker = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { worker.run(&shutdown).await }
    });
    // Of its own: it waits for whoever reads standard output.
    let shown = tokio::spawn({
        let (queue, intake) = (Arc::clone(&queue), Arc::clone(&intake));
        let left = async move || Some((queue.live().await.ok()? + intake.pending()) as u64);
        Reporter::new(style, bar).run(shown, left)
    });
    while until_idle && !shutdown.drain.is_cancelled() {
        // In this order: a file leaves the intake only after it is in the queue.
        let idle = intake.pending() == 0 && queue.live().await.is_ok_and(|live| live == 0);
        if idle || !intake.alive() {
            shutdown.drain.cancel();
        }
        tokio::time::sleep(IDLE_CHECK).await;
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
    if !intake.alive() {
        return Err(Fatal::Failed("the intake of files stopped working, see the log".to_owned()));
    }
    if let Some(intake) = Arc::into_inner(intake) {
        intake.shutdown().await;
    }
    shown.map_err(|error| Fatal::Failed(format!("cannot write to standard output: {error}")))
}

/// Says what of the last runs needs somebody, and what of the configuration will.
async fn warn_of_trouble(config: &Config, catalog: &Catalog, queue: &LocalQueue) -> Result<(), Fatal> {
    for letter in queue.dead_letters(SHOWN_LETTERS).await.map_err(Fatal::failed)? {
        let (key, reason) = (text::printable(&letter.key, SHOWN), text::printable(&letter.letter.reason, SHOWN));
        tracing::warn!(key, reason, "dead-lettered by an earlier run, change or `touch` the file to try it again");
    }
    let uses = config.routes.iter().flat_map(|route| &route.uses);
    for used in uses.filter(|used| !config.has_default_routes && catalog.get(&used.plugin).is_none()) {
        let plugin = &used.plugin;
        tracing::error!(
            plugin,
            "a route names a plugin that is not loaded, its objects are retried and then dead-lettered"
        );
    }
    Ok(())
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
