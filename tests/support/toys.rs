//! Objects whose suffix says what happens to them, and a host that knows the toy guests for it.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use gristmill::{
    circuit::Circuits,
    config::{Config, KeyPattern, Limits, Place, Plugins, Retry, Route, Trust, Use},
    event::{self, ObjectEvent},
    job::{Context, Shadows},
    lanes::Lanes,
    plugin::{Compiler, Engine, Plugin},
    registry::{Catalog, Registry},
};
use serde_json::json;
use tokio::{runtime::Handle, sync::watch};

pub const BUCKET: &str = "bucket";

/// Guests that may run at the same time, over all threads of a test.
const SLOTS: usize = 64;

pub const GUESTS: [&str; 8] = ["copy", "upper", "split", "skip", "reject", "flaky", "retry", "trap-mid-write"];

/// What happens to an object. Its key ends with `.` and the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No plugin: the object is only moved.
    Move,
    /// One output.
    Copy,
    /// Two outputs of one plugin.
    Split,
    /// Two plugins, one output each.
    Fan,
    /// Nothing to do.
    Skip,
    /// Nothing to do for one of two plugins.
    Half,
    Reject,
    /// Works from the second attempt on.
    Flaky,
    /// Wants to come back for ever.
    Never,
    /// Traps after half of its output.
    Trap,
    /// Works, but not together with the plugin after it, which is not loaded.
    Missing,
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Move,
        Self::Copy,
        Self::Split,
        Self::Fan,
        Self::Skip,
        Self::Half,
        Self::Reject,
        Self::Flaky,
        Self::Never,
        Self::Trap,
        Self::Missing,
    ];

    pub fn suffix(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::Copy => "copy",
            Self::Split => "split",
            Self::Fan => "fan",
            Self::Skip => "skip",
            Self::Half => "half",
            Self::Reject => "reject",
            Self::Flaky => "flaky",
            Self::Never => "never",
            Self::Trap => "trap",
            Self::Missing => "missing",
        }
    }

    pub fn of(key: &str) -> Self {
        let (_, suffix) = key.rsplit_once('.').unwrap();
        Self::ALL.into_iter().find(|kind| kind.suffix() == suffix).unwrap()
    }

    /// The plugins that get the object.
    pub fn plugins(self) -> &'static [&'static str] {
        match self {
            Self::Move => &[],
            Self::Copy => &["copy"],
            Self::Split => &["split"],
            Self::Fan => &["copy", "upper"],
            Self::Skip => &["skip"],
            Self::Half => &["skip", "upper"],
            Self::Reject => &["reject"],
            Self::Flaky => &["flaky"],
            Self::Never => &["copy", "retry"],
            Self::Trap => &["upper", "trap-mid-write"],
            Self::Missing => &["copy", "ghost"],
        }
    }

    /// The class of the dead letter that the object ends with when nothing else goes wrong; none when it
    /// is processed.
    pub fn dies_of(self) -> Option<&'static str> {
        match self {
            Self::Reject => Some("reject"),
            Self::Never => Some("retry"),
            Self::Trap => Some("trap"),
            Self::Missing => Some("plugin-missing"),
            _ => None,
        }
    }

    /// What the plugins make of `content`: suffix of the name, plugin, bytes.
    pub fn outputs(self, content: &[u8]) -> Vec<(&'static str, &'static str, Vec<u8>)> {
        let (head, tail) = content.split_at(content.len() / 2);
        match self {
            Self::Copy => vec![("copy", "copy", content.to_vec())],
            Self::Flaky => vec![("copy", "flaky", content.to_vec())],
            Self::Split => vec![("head", "split", head.to_vec()), ("tail", "split", tail.to_vec())],
            Self::Fan => {
                vec![("copy", "copy", content.to_vec()), ("upper", "upper", content.to_ascii_uppercase())]
            }
            Self::Half => vec![("upper", "upper", content.to_ascii_uppercase())],
            _ => Vec::new(),
        }
    }
}

/// Where the object goes.
pub fn destination(key: &str) -> String {
    format!("processed/{}", key.strip_prefix("uploads/").unwrap())
}

/// One route for each kind.
pub fn config(retry: Retry, slots: usize) -> Config {
    let used = |plugin: &&str| Use {
        plugin: (*plugin).to_owned(),
        settings: Arc::new(json!({ "until": "2" }).as_object().unwrap().clone()),
        limits: Limits { deadline: Duration::from_secs(60), ..Limits::default() },
    };
    let route = |kind: Kind| Route {
        keys: vec![KeyPattern::new(&format!("*.{}", kind.suffix())).unwrap()],
        content_types: Vec::new(),
        min_size: None,
        max_size: None,
        source_prefix: "uploads/".to_owned(),
        destination_prefix: "processed/".to_owned(),
        uses: kind.plugins().iter().map(used).collect(),
    };
    Config {
        place: Place::Directory("/nowhere".into()),
        source_prefix: "uploads/".to_owned(),
        destination_prefix: "processed/".to_owned(),
        plugins: Plugins::BuiltIn,
        trust: Trust::default(),
        state: None,
        routes: Kind::ALL.into_iter().map(route).collect(),
        has_default_routes: false,
        retry,
        has_default_attempts: false,
        probe_interval: Duration::from_secs(30),
        visibility_timeout: Duration::from_secs(30),
        slots,
        concurrency: BTreeMap::new(),
        grants: BTreeMap::new(),
        canaries: BTreeMap::new(),
        bytes_in_flight: 256 << 20,
        drain_timeout: Duration::from_secs(20),
    }
}

/// The guests, compiled once for the whole test.
pub fn catalog() -> watch::Receiver<Arc<Catalog>> {
    static CATALOG: OnceLock<watch::Receiver<Arc<Catalog>>> = OnceLock::new();
    CATALOG
        .get_or_init(|| {
            // Without a clock, so that the same seed comes out the same.
            let engine = Engine::with_tick(SLOTS, Duration::MAX).unwrap();
            let load = |name| {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/guests/{name}.wasm"));
                let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}; run `make plugins`"));
                Plugin::load(&engine, &Compiler::in_process(), name, &bytes).unwrap()
            };
            Registry::fixed(Catalog::of(GUESTS.map(load))).catalog()
        })
        .clone()
}

pub fn digest(plugin: &str) -> String {
    catalog().borrow().get(plugin).unwrap().version().digest
}

/// What a worker needs, with guests on the runtime that asks.
pub fn context<S>(store: S, config: &Arc<Config>) -> Arc<Context<S>> {
    Arc::new(Context {
        store: Arc::new(store),
        bucket: BUCKET.to_owned(),
        config: Arc::clone(config),
        catalog: catalog(),
        lanes: Lanes::on(&Handle::current()),
        // Toys that always fail are there to end in the dead letters.
        circuits: Circuits::new(None),
        shadows: Shadows::default(),
    })
}

/// The message that S3 would send about one or more uploads.
pub fn message<'a>(uploads: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let records: Vec<serde_json::Value> = uploads
        .into_iter()
        .map(|(key, etag)| {
            let event = ObjectEvent {
                bucket: BUCKET.to_owned(),
                key: key.to_owned(),
                size: None,
                etag: Some(etag.to_owned()),
                version_id: None,
                event_time: None,
                event_name: "ObjectCreated:Put".to_owned(),
            };
            let mut message: serde_json::Value = serde_json::from_slice(&event::encode(&event)).unwrap();
            message["Records"][0].take()
        })
        .collect();
    json!({ "Records": records }).to_string().into_bytes()
}
