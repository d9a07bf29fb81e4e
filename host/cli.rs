//! The command line, and nothing else.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, ValueHint, builder::PossibleValue};
use clap_complete::Shell;

use crate::telemetry::Format;

/// The most messages a second that `--rate` can ask for: beyond, requests take longer than the wait.
const MAX_RATE: i64 = 10_000;

/// Runs WebAssembly plugins over the objects that land in a bucket.
#[derive(Debug, Parser)]
#[command(
    name = "gristmill",
    version,
    about,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Start with `gristmill dev DIR`: drop files into DIR/uploads and find the results in DIR/processed.\n\
                  Exit codes: 0 done, 1 something was dead-lettered or refused, 64 wrong usage, 78 wrong configuration."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// How log lines on standard error look.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "GRISTMILL_LOG_FORMAT",
        value_enum,
        default_value_t,
        hide_env_values = true
    )]
    pub log_format: Format,

    /// What to log: a level, or levels by target (`debug`, `warn,plugin=debug`). Plugins log as `plugin`.
    #[arg(long, global = true, value_name = "FILTER", env = "GRISTMILL_LOG", hide_env_values = true)]
    pub log: Option<String>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Process the files of a directory on this machine, without any configuration.
    ///
    /// Creates DIR/uploads, DIR/processed and DIR/.gristmill, takes the plugins from DIR/plugins if that is
    /// there and else the built-in ones, and watches DIR/uploads until it is stopped. DIR/gristmill.toml is
    /// read if it is there.
    Dev {
        /// The directory that plays the bucket. Made if it is not there.
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
        #[command(flatten)]
        serve: Serve,
    },
    /// Process objects as the configuration says.
    Run {
        #[command(flatten)]
        serve: Serve,
    },
    /// Check a configuration and its plugins, and report everything that is wrong with them at once.
    ///
    /// With --live it also looks at the bucket and its queue, or at the directory: whether they are there, what
    /// we may do with them, and whether they are set up so that no object is lost. It touches no message and no
    /// object but its own, below DESTINATION_PREFIX/.gristmill-check/, and takes those away again.
    #[command(after_help = "Examples:\n  \
        gristmill check                         is gristmill.toml right?\n  \
        gristmill check -c prod.toml --live     and does what it names do what we need?\n  \
        gristmill check --live --json | jq 'select(.severity == \"error\")'\n\
        Exit codes: 0 good, perhaps with warnings; 78 something has to be mended.")]
    Check {
        #[command(flatten)]
        place: PlaceArgs,
        /// Look at the bucket and the queue, or the directory, too.
        #[arg(long)]
        live: bool,
        /// Print one JSON object for each finding.
        #[arg(long, requires = "live")]
        json: bool,
    },
    /// Look through the dead-letter queue; put messages back, or delete them.
    ///
    /// An object whose message is there stays below the source prefix, so what was put back is simply tried
    /// again. It does not matter whether a host is running.
    #[command(subcommand, arg_required_else_help = true)]
    Dlq(DlqCommand),
    /// Find objects that nobody was told of, and queue them.
    ///
    /// Lists the source prefix and sends an event for every object that has been there for longer than
    /// --older-than: notifications that were lost, messages that a long outage outlived. Objects whose message
    /// is on the dead-letter queue are left out; they want `gristmill dlq redrive`.
    ///
    /// It may run at any time and beside hosts at work. What waits in an SQS queue cannot be looked up, so an
    /// object that waits there is sent a second time. That is harmless, since every object is processed once
    /// however often it is delivered, but it costs requests: let --older-than be longer than the usual wait.
    ///
    /// In a directory there is nothing to do: the host looks through it at its start and from then on.
    #[command(after_help = "Examples:\n  \
        gristmill reconcile --dry-run           what would be queued?\n  \
        gristmill reconcile --older-than 1day   after an outage\n  \
        gristmill reconcile --json | jq .key")]
    Reconcile {
        #[command(flatten)]
        place: PlaceArgs,
        /// Leave alone what has been there for a shorter time than this.
        #[arg(long, value_name = "AGE", default_value = "1h", value_parser = age)]
        older_than: Duration,
        /// Queue also what is on the dead-letter queue.
        #[arg(long)]
        include_dead: bool,
        /// Only say what would be queued.
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON object for each object queued, and a last one with the summary.
        #[arg(long)]
        json: bool,
    },
    /// Run one object of the bucket through a chosen version of a plugin, and show what it makes.
    ///
    /// The object is told and treated as its route says, wherever it is by now: under the source prefix or under a
    /// destination. Nothing is written and nothing is moved, and it does not matter whether a host is running.
    ///
    /// With --commit the object, which must be under the source prefix, is processed with that version for good:
    /// every plugin of its route runs, results become visible, the original is moved. A message or a dead letter
    /// about it stays, and finds it done. In a directory no host may be running meanwhile.
    #[command(after_help = "Examples:\n  \
        gristmill replay uploads/cat.jpg --plugin target/resize.wasm -d photos\n  \
        gristmill replay processed/cat.jpg --plugin resize@1f2e3d\n  \
        gristmill replay uploads/cat.jpg --plugin resize@1f2e3d --commit\n\
        Exit codes: 0 done or skipped, 1 anything else.")]
    Replay {
        #[command(flatten)]
        place: PlaceArgs,
        /// The object's key, with its prefix.
        key: String,
        /// A file, or a version that a host has kept: `gristmill plugin list -d DIR` names them.
        #[arg(long, value_name = "FILE|NAME@DIGEST")]
        plugin: String,
        /// Process the object for good.
        #[arg(long)]
        commit: bool,
        /// Print a JSON object for each call, or for what was committed.
        #[arg(long)]
        json: bool,
    },
    /// List, inspect and try plugins.
    #[command(subcommand, arg_required_else_help = true)]
    Plugin(PluginCommand),
    /// Compile what is on standard input, as the child of a host that loads a plugin.
    #[command(hide = true)]
    CompilePlugin {
        /// Address space to get by with, in bytes.
        #[arg(long)]
        memory: u64,
        /// CPU time to get by with.
        #[arg(long)]
        cpu_seconds: u64,
    },
    /// Print the completions for a shell (bash: `source <(gristmill completions bash)`).
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration file. Without it, `gristmill.toml` is read if it is there, and the environment.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

/// Where the objects are, for the verbs that serve none.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    #[command(flatten)]
    pub config: ConfigFile,

    /// The directory of local mode, as in `gristmill dev DIR`. Its `gristmill.toml` is read if it is there.
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
}

/// How to serve.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub config: ConfigFile,

    /// Take the plugins from this directory (`NAME.wasm`).
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub plugins: Option<PathBuf>,

    /// Objects in work at the same time [default: 4 for each core, 32 with a bucket].
    #[arg(long, value_name = "N")]
    pub slots: Option<usize>,

    /// End when the queue is empty.
    #[arg(long)]
    pub until_idle: bool,

    /// Print one JSON object for each finished object, and a last one with the summary.
    #[arg(long)]
    pub json: bool,
}

/// The verbs of `gristmill dlq`.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List dead letters: when, of which class, at which attempt, by which plugin, about what, why.
    #[command(after_help = "Examples:\n  \
        gristmill dlq list -d photos\n  \
        gristmill dlq list --class trap --limit 20\n  \
        gristmill dlq list --json | jq -r .class | sort | uniq -c")]
    List {
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        filter: DeadFilter,
        /// Stop after so many.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// Print one JSON object for each.
        #[arg(long)]
        json: bool,
    },
    /// Show all there is to know of some dead letters, with the message and the plugin's backtrace.
    #[command(after_help = "Examples:\n  \
        gristmill dlq show 17 -d photos\n  \
        gristmill dlq show 5fea7756 --json | jq -r .body")]
    Show {
        #[command(flatten)]
        place: PlaceArgs,
        /// As `list` prints them; the beginning is enough where only one begins so.
        #[arg(value_name = "ID", required = true, value_parser = dead_id)]
        ids: Vec<String>,
        /// Print one JSON object for each.
        #[arg(long)]
        json: bool,
    },
    /// Put dead letters back on the queue: their objects are tried again, attempts from the start.
    ///
    /// One by one, each sent before it is deleted, so that none is lost. Whoever stops it halfway just starts it
    /// again.
    #[command(after_help = "Examples:\n  \
        gristmill dlq redrive 17 18 -d photos\n  \
        gristmill dlq redrive --class plugin-missing\n  \
        gristmill dlq redrive --reason 'no space left' --dry-run\n  \
        gristmill dlq redrive --all --rate 50\n\
        Exit codes: 0 all that were named were put back, 1 some were not, 64 nothing was named.")]
    Redrive {
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        selection: DeadSelection,
        /// At most so many a second [default: as fast as it goes; hosts take them at their own pace].
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_RATE))]
        rate: Option<u32>,
        /// Only say which would be put back.
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON object for each, and a last one with the summary.
        #[arg(long)]
        json: bool,
    },
    /// Delete dead letters for good. Their objects stay where they are.
    ///
    /// Nobody tries an object again whose dead letter was deleted, until it is written anew; in a bucket also
    /// `gristmill reconcile` would queue it.
    #[command(after_help = "Examples:\n  \
        gristmill dlq purge 17 -d photos\n  \
        gristmill dlq purge --class malformed --dry-run\n  \
        gristmill dlq purge --all\n\
        Exit codes: 0 all that were named were deleted, 1 some were not, 64 nothing was named.")]
    Purge {
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        selection: DeadSelection,
        /// Only say which would be deleted.
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON object for each, and a last one with the summary.
        #[arg(long)]
        json: bool,
    },
}

impl DlqCommand {
    /// Where the objects are.
    #[must_use]
    pub fn place(&self) -> &PlaceArgs {
        match self {
            Self::List { place, .. }
            | Self::Show { place, .. }
            | Self::Redrive { place, .. }
            | Self::Purge { place, .. } => place,
        }
    }
}

/// Which dead letters, by what is in them. All of it has to hold.
#[derive(Debug, Clone, Default, Args)]
pub struct DeadFilter {
    /// Those of this class (`reject`, `trap`, `deadline`, `memory`, `conflict`, `malformed`, …).
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,

    /// Those whose reason contains this.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Which dead letters to do something with. Nothing is no choice: `--all` has to be said.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["ids", "class", "reason", "all"]).required(true).multiple(true))]
pub struct DeadSelection {
    /// These, as `list` prints them; the beginning is enough where only one begins so.
    #[arg(value_name = "ID", value_parser = dead_id, conflicts_with_all = ["class", "reason", "all"])]
    pub ids: Vec<String>,

    #[command(flatten)]
    pub filter: DeadFilter,

    /// Every one.
    #[arg(long, conflicts_with_all = ["class", "reason"])]
    pub all: bool,
}

/// The verbs of `gristmill plugin`.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// List the plugins of a directory, the refused ones too; without a directory the built-in ones.
    ///
    /// With --config or --directory those of a host, each with what was decided about its versions: which is the
    /// stable one, what became of its canary, which older ones are kept.
    List {
        /// The plugin directory.
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "directory")]
        plugins: Option<PathBuf>,
        #[command(flatten)]
        place: PlaceArgs,
        /// Print one JSON object for each plugin.
        #[arg(long)]
        json: bool,
    },
    /// Show what a plugin is, what it imports, and what it asks for against what it is granted; or why it is refused.
    Inspect {
        /// A component, or a core module with WIT metadata.
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        place: PlaceArgs,
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Make the canary of a plugin its stable version, now.
    ///
    /// It stays that until NAME.wasm changes. A running host takes notice at once; none has to be running.
    Promote {
        #[command(flatten)]
        place: PlaceArgs,
        /// The plugin's name.
        name: String,
    },
    /// Stop trying the canary of a plugin; without one, go back to its version before the stable one.
    ///
    /// That stays so until the file changes, and the version's own file is not needed for it. A running host takes
    /// notice at once; none has to be running.
    Rollback {
        #[command(flatten)]
        place: PlaceArgs,
        /// The plugin's name.
        name: String,
    },
    /// Run files through a plugin, one call each, without a queue. The files stay where they are.
    Run {
        /// The plugin: a file, or the name of a built-in one.
        #[arg(value_name = "PLUGIN", value_hint = ValueHint::FilePath)]
        plugin: PathBuf,
        #[command(flatten)]
        place: PlaceArgs,
        /// The objects.
        #[arg(value_name = "INPUT", required = true, value_hint = ValueHint::FilePath)]
        inputs: Vec<PathBuf>,
        /// Where results go.
        #[arg(short, long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
        output: PathBuf,
        /// A setting; the value is taken as JSON if it is some (`80`, `[320,1280]`), else as a string.
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<(String, serde_json::Value)>,
        /// Replace results that are already there.
        #[arg(long)]
        force: bool,
    },
    /// Make a pair of keys: NAME.key, which signs plugins, and NAME.pub, which checks signatures.
    Keygen {
        /// Where they go. Nothing is overwritten.
        #[arg(short, long, value_name = "NAME", default_value = "gristmill", value_hint = ValueHint::FilePath)]
        output: PathBuf,
        /// Do not ask for a password to encrypt NAME.key with: for machines that sign.
        #[arg(long)]
        no_password: bool,
    },
    /// Sign plugins: writes FILE.sig beside each, in the format of minisign.
    #[command(after_help = "A host that has `plugins_signed_by` in its configuration takes only signed plugins.")]
    Sign {
        /// The plugins.
        #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        /// The secret key, as `keygen` or minisign makes it.
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        key: PathBuf,
    },
    /// Check the signatures of plugins.
    #[command(after_help = "Exit codes: 0 each of them is signed, 1 one is not.")]
    Verify {
        /// The plugins, each with its FILE.sig beside it.
        #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        /// The public key: a file, or the line in it that begins with `RW`. More than one may be given.
        #[arg(short, long, value_name = "KEY", required = true)]
        public_key: Vec<String>,
    },
}

impl PluginCommand {
    /// Which host it is about, if it is about one.
    #[must_use]
    pub fn place(&self) -> Option<&PlaceArgs> {
        match self {
            Self::Promote { place, .. } | Self::Rollback { place, .. } => Some(place),
            Self::List { place, .. } | Self::Inspect { place, .. } | Self::Run { place, .. } => {
                (place.config.config.is_some() || place.directory.is_some()).then_some(place)
            }
            Self::Keygen { .. } | Self::Sign { .. } | Self::Verify { .. } => None,
        }
    }
}

/// Here, so that the logs know nothing of the command line.
impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Text => PossibleValue::new("text").help("For people"),
            Self::Json => PossibleValue::new("json").help("One JSON object a line"),
        })
    }
}

/// An empty beginning would be everybody's.
fn dead_id(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("an ID is not empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn age(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like `1h` or `2days`"))
}

fn setting(text: &str) -> Result<(String, serde_json::Value), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
        }
        _ => Err("write it as `KEY=VALUE`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_are_json_if_they_can_be() {
        assert_eq!(setting("sizes=[1,2]"), Ok(("sizes".into(), serde_json::json!([1, 2]))));
        assert_eq!(setting("fit=cover"), Ok(("fit".into(), "cover".into())));
        assert_eq!(setting("text=a=b"), Ok(("text".into(), "a=b".into())));
        assert!(setting("fit").is_err());
        assert!(setting("=1").is_err());
    }

    /// Whoever names nothing is told what could be named.
    #[test]
    fn dead_letters_have_to_be_named() {
        let parse = |more: &[&str]| Cli::try_parse_from([&["gristmill", "dlq", "purge"], more].concat());
        for right in [&["1", "2"][..], &["--class", "trap"], &["--class", "trap", "--reason", "x"], &["--all"]] {
            assert!(parse(right).is_ok(), "{right:?}");
        }
        let wrong =
            [&[][..], &["--dry-run"], &["1", "--all"], &["1", "--class", "x"], &["--all", "--reason", "x"], &[""]];
        for wrong in wrong {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        let nothing = parse(&[]).unwrap_err().to_string();
        assert!(nothing.contains("ID|--class <CLASS>|--reason <TEXT>|--all"), "{nothing}");
    }

    #[test]
    fn ages_have_units() {
        assert_eq!(age("90m"), Ok(Duration::from_secs(5_400)));
        assert!(age("90").is_err_and(|error| error.contains("write it like `1h`")));
    }
}
