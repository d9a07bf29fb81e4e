//! The command line, and nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint, builder::PossibleValue};
use clap_complete::Shell;

use crate::telemetry::Format;

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
    Check {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// List, inspect and try plugins.
    #[command(subcommand, arg_required_else_help = true)]
    Plugin(PluginCommand),
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

/// How to serve.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub config: ConfigFile,

    /// Take the plugins from this directory (`NAME.wasm`).
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub plugins: Option<PathBuf>,

    /// Objects in work at the same time [default: 4 for each core].
    #[arg(long, value_name = "N")]
    pub slots: Option<usize>,

    /// End when the queue is empty.
    #[arg(long)]
    pub until_idle: bool,

    /// Print one JSON object for each finished object, and a last one with the summary.
    #[arg(long)]
    pub json: bool,
}

/// The verbs of `gristmill plugin`.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// List the plugins of a directory, the refused ones too; without a directory the built-in ones.
    List {
        /// The plugin directory.
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
        /// Print one JSON object for each plugin.
        #[arg(long)]
        json: bool,
    },
    /// Show what a plugin is and what it imports, or why it is refused.
    Inspect {
        /// A component, or a core module with WIT metadata.
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Run files through a plugin, one call each, without a queue. The files stay where they are.
    Run {
        /// The plugin: a file, or the name of a built-in one.
        #[arg(value_name = "PLUGIN", value_hint = ValueHint::FilePath)]
        plugin: PathBuf,
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
}
