//! `gristmill`: command line, telemetry, configuration, verb, exit code.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use gristmill::{
    cli::{Cli, Command, ConfigFile, PlaceArgs, Serve},
    commands::{self, Fatal},
    config::{self, Config, Overrides, Sources},
    plugin::{self, Cache, CompileLimits, Compiler},
    report::{Style, progress_bar},
    telemetry,
};

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
    if let Command::CompilePlugin { memory, cpu_seconds } = cli.command {
        return Ok(plugin::compile_standard_input(memory, Duration::from_secs(cpu_seconds)));
    }
    let style = match &cli.command {
        Command::Dev { serve, .. } if !serve.json => Style::Table,
        Command::Dev { serve, .. } | Command::Run { serve } if serve.json => Style::Json,
        _ => Style::Log,
    };
    // At a terminal the table tells what happens to objects; the log tells the rest.
    let default_filter = if style == Style::Log {
        "warn,gristmill=info,plugin=info"
    } else {
        "warn,gristmill::circuit=info,gristmill::registry=info,plugin=info"
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
            commands::serve::serve(config, serve.until_idle, compiler(), style, bar)
        }
        Command::Run { serve } => {
            let config = load_config(&serve.config, overrides(&serve, None))?;
            commands::serve::serve(config, serve.until_idle, compiler(), style, bar)
        }
        Command::Check { place, live, json } => commands::check::check(place_config(&place), &compiler(), live, json),
        Command::Dlq(command) => {
            let config = place_config(command.place())?;
            commands::dlq::run(command, &config)
        }
        Command::Reconcile { place, older_than, include_dead, dry_run, json } => {
            let how = commands::reconcile::How { older_than, include_dead, dry_run, json };
            commands::reconcile::reconcile(&place_config(&place)?, &how)
        }
        Command::Replay { place, key, plugin, commit, json } => {
            let how = commands::replay::How { key, plugin, commit, json };
            commands::replay::replay(&place_config(&place)?, &how, &compiler())
        }
        Command::Plugin(command) => {
            let config = command.place().map(place_config).transpose()?;
            commands::plugin::run(command, config.as_ref(), &compiler())
        }
        Command::CompilePlugin { .. } => Err(Fatal::Usage("this verb is for the host itself".to_owned())),
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
    load_config(&beside(&serve.config, directory), overrides(serve, Some(directory.to_owned())))
}

/// The same for the verbs that may also be about a bucket, and that make nothing.
fn place_config(place: &PlaceArgs) -> Result<Config, Fatal> {
    match &place.directory {
        None => load_config(&place.config, Overrides::default()),
        Some(directory) => {
            let overrides = Overrides { directory: Some(directory.clone()), ..Overrides::default() };
            load_config(&beside(&place.config, directory), overrides)
        }
    }
}

fn beside(named: &ConfigFile, directory: &Path) -> ConfigFile {
    let beside = directory.join("gristmill.toml");
    ConfigFile { config: named.config.clone().or_else(|| beside.is_file().then_some(beside)) }
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
    let mut config = config::load(sources).map_err(|errors| Fatal::Config(errors.to_string()))?;
    config.state = config.state.or_else(user_state);
    Ok(config)
}

/// Where a host without a directory of its own remembers things; nowhere if this user has no such place.
fn user_state() -> Option<PathBuf> {
    Some(user_folder(("XDG_STATE_HOME", ".local/state"))?.join("gristmill"))
}

/// This very program: whatever is installed under its name meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// A compiler that keeps code among this user's caches, as far as that can be had, for commands that have no directory
/// of their own.
fn compiler() -> Compiler {
    let open = || {
        let cache = user_folder(("XDG_CACHE_HOME", ".cache"))?;
        Cache::open(&cache.join("gristmill"), &user_state()?.join("cache.key"))
            .inspect_err(|error| tracing::warn!(%error, "compiling without a cache"))
            .ok()
    };
    Compiler::in_child(THIS_PROGRAM, CompileLimits::default()).with_cache(open())
}

/// As the XDG Base Directory Specification has it: a variable, else a place below the home directory.
fn user_folder((variable, usual): (&str, &str)) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(usual)))
}
