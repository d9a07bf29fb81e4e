//! Configuration: file, environment and flags, parsed once into a validated [`Config`].
//!
//! [`load`] takes everything as data and reports all that is wrong at once, each problem with its line,
//! its value and a way out. Where several sources give the same value, the strongest one wins:
//!
//! 1. the command-line flag;
//! 2. `GRISTMILL_<KEY>`, for every scalar key at the top of the file (`GRISTMILL_SLOTS`);
//! 3. the names that workers have: `BUCKET`, `REGION`, `QUEUE_URL`, `SRC_PREFIX`, `DST_PREFIX`;
//! 4. the names that AWS's tools have: `AWS_REGION`, then `AWS_DEFAULT_REGION`;
//! 5. `gristmill.toml`;
//! 6. the default.
//!
//! A variable that is set to nothing counts as not set. Whether objects are in a directory or in a
//! bucket is decided first, by the strongest of flag, `GRISTMILL_DIRECTORY` or `GRISTMILL_BUCKET`, file
//! and `BUCKET`, in this order; in local mode the variables of bucket, region and queue are not looked at.
//! Relative paths start at the file's folder in the file, and at the working directory elsewhere.

mod document;
mod environment;
mod error;
mod grants;
mod layers;
mod limits;
mod load;
mod pattern;
mod routes;
#[cfg(test)]
mod tests;
mod value;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::signing::PublicKey;

pub use self::{
    error::{ConfigError, ConfigErrors, Origin},
    grants::Grants,
    limits::{MAX_MEMORY, MAX_VISIBILITY},
    load::{Overrides, Sources, load},
    pattern::KeyPattern,
    value::is_plugin_name,
};

/// Everything the host was told, checked. Nothing below `main` reads a file or the environment for it.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the objects are.
    pub place: Place,
    /// Objects under this prefix are processed. Ends with `/` and is never empty: results would land
    /// under it, too.
    pub source_prefix: String,
    /// Where results and originals go when a route names nothing else. Ends with `/` and is neither
    /// inside nor around the source prefix.
    pub destination_prefix: String,
    /// Where the plugins are.
    pub plugins: Plugins,
    /// Which of the files there are taken.
    pub trust: Trust,
    /// Where the host keeps what it must remember of its plugins: their versions, and what was decided about
    /// them. In local mode that is its own directory, else as given, or wherever the user's programs do so.
    pub state: Option<PathBuf>,
    /// In order; the first that matches takes the object.
    pub routes: Vec<Route>,
    /// Whether nobody wrote `routes`: they then name the built-in plugins, whatever the directory holds.
    pub has_default_routes: bool,
    /// When to try again and when to stop.
    pub retry: Retry,
    /// Whether nobody wrote `max_attempts`: a queue that has a maximum of its own then says.
    pub has_default_attempts: bool,
    /// While a plugin fails on most objects, one of them is given to it this often; the others wait.
    pub probe_interval: Duration,
    /// For how long a received message stays invisible unless its lease is renewed.
    pub visibility_timeout: Duration,
    /// Messages in work at the same time, and guests.
    pub slots: usize,
    /// How many calls of a plugin there may be at the same time, for the plugins that somebody named.
    pub concurrency: BTreeMap<String, usize>,
    /// What plugins may have beyond their objects, for those that somebody granted something.
    pub grants: BTreeMap<String, Grants>,
    /// How canaries are tried, for the plugins that somebody named.
    pub canaries: BTreeMap<String, Canary>,
    /// Bytes that the objects in the hands of plugins may have together. A larger one has the host's plugins
    /// for itself.
    pub bytes_in_flight: u64,
    /// How long a drain waits for the jobs in flight.
    pub drain_timeout: Duration,
}

impl Config {
    /// The prefixes of sources and destinations, each once.
    #[must_use]
    pub fn prefixes(&self) -> Vec<&str> {
        let routes = self.routes.iter().map(|route| route.destination_prefix.as_str());
        let mut prefixes: Vec<&str> =
            [self.source_prefix.as_str(), &self.destination_prefix].into_iter().chain(routes).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }

    /// How many calls of the plugin there may be at the same time, over all routes that use it.
    #[must_use]
    pub fn concurrency(&self, plugin: &str) -> usize {
        self.concurrency.get(plugin).copied().unwrap_or_else(|| self.slots.saturating_mul(3).div_ceil(4)).max(1)
    }
}

/// How a new version of a plugin is tried: `NAME@canary.wasm` beside `NAME.wasm`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Canary {
    /// The part of the objects that it gets, above 0 and below 1.
    pub share: f64,
    /// Promoted after so many objects that it did not fail on.
    pub after: u32,
    /// Rolled back when it fails on a larger part of its objects than this, although the stable version manages
    /// them.
    pub failure_margin: f64,
    /// Rolled back when its median is longer than the stable version's by a larger part than this.
    pub latency_margin: f64,
}

impl Default for Canary {
    /// A tenth of the objects: little to redo, and a hundred of them are there soon.
    fn default() -> Self {
        Self { share: 0.1, after: 100, failure_margin: 0.01, latency_margin: 0.5 }
    }
}

/// Where the objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Local mode: the directory is the bucket.
    Directory(PathBuf),
    /// SQS and S3.
    Bucket(Bucket),
}

/// A bucket and the queue of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// The bucket's name.
    pub name: String,
    /// The AWS region; the SDK's own rules apply when absent.
    pub region: Option<String>,
    /// The SQS queue's URL.
    pub queue_url: String,
    /// Where messages go that are given up; the queue's own redrive policy says so when absent.
    pub dead_letter_queue_url: Option<String>,
    /// `https://endpoint/bucket/key` instead of `https://bucket.endpoint/key`, as most other stores want.
    pub path_style: bool,
    /// Objects larger than this many bytes are copied in parts.
    pub copy_in_parts_above: u64,
}

impl Place {
    /// The directory of local mode.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(directory) => Some(directory),
            Self::Bucket(_) => None,
        }
    }
}

/// Where the plugins are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plugins {
    /// The three that the binary carries.
    BuiltIn,
    /// Every `NAME.wasm` in a directory.
    Directory(PathBuf),
}

/// Which files of the plugin directory are taken. By default those that only this user and root can change, and that
/// lie there themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Files and a directory that others can change are taken, too: volumes of containers belong to anybody.
    pub any_owner: bool,
    /// `NAME.wasm` may be a link as the volumes of Kubernetes have them, through `..data`.
    pub links: bool,
    /// With one of these keys each file has to be signed, in a `NAME.wasm.sig` beside it. None: nothing has to be.
    pub signed_by: Vec<PublicKey>,
    /// SHA-256 in lower-case hexadecimal of the files that may be there by this name, for the plugins that somebody
    /// pinned.
    pub pins: BTreeMap<String, Vec<String>>,
}

/// Which objects go to which plugins.
#[derive(Debug, Clone)]
pub struct Route {
    /// Held against the key below the route's source prefix. Any of them; an empty list matches every key.
    pub keys: Vec<KeyPattern>,
    /// `type/subtype` or `type/*`, in lower case. Any of them; an empty list matches every type, and no
    /// type.
    pub content_types: Vec<String>,
    /// Bytes, inclusive.
    pub min_size: Option<u64>,
    /// Bytes, inclusive.
    pub max_size: Option<u64>,
    /// Below or equal to the configuration's; objects outside it don't match.
    pub source_prefix: String,
    /// Where this route's results and originals go, with their path below the route's source prefix.
    pub destination_prefix: String,
    /// One or more plugins; all must succeed. None: the object is only moved.
    pub uses: Vec<Use>,
}

/// One plugin in a route.
#[derive(Debug, Clone)]
pub struct Use {
    /// As in `NAME.wasm`.
    pub plugin: String,
    /// Handed to the plugin as they are.
    pub settings: Arc<serde_json::Map<String, serde_json::Value>>,
    /// What a call may take.
    pub limits: Limits,
}

/// What one call of a plugin may take. Each limit has an error of its own that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory, bytes, all memories of the component together.
    pub memory: u64,
    /// Wall time of the call.
    pub deadline: Duration,
    /// Bytes of all outputs together.
    pub output_bytes: u64,
    /// Number of outputs.
    pub outputs: u32,
    /// Bytes of all log lines together.
    pub log_bytes: u64,
    /// Number of log lines.
    pub log_lines: u32,
    /// Handles (body, outputs and WASI's) open at the same time.
    pub handles: u32,
    /// Number of HTTP requests.
    pub http_requests: u32,
    /// Bytes of all HTTP requests and responses together.
    pub http_bytes: u64,
}

impl Default for Limits {
    /// Enough for a 100-megapixel photograph and a large document, too little to hurt the host.
    fn default() -> Self {
        Self {
            memory: 512 << 20,
            deadline: Duration::from_secs(60),
            output_bytes: 16 << 30,
            outputs: 1_000,
            log_bytes: 256 << 10,
            log_lines: 1_000,
            handles: 1_024,
            http_requests: 100,
            http_bytes: 64 << 20,
        }
    }
}

/// When to try an object again and when to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Deliveries before an object goes to the dead letters, from 1.
    pub max_attempts: u32,
    /// Back-off after the first failure; doubles with each.
    pub base: Duration,
    /// The longest back-off.
    pub max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: 5, base: Duration::from_secs(1), max: Duration::from_secs(300) }
    }
}
