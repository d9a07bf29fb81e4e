//! `gristmill replay`: one object of the bucket through a chosen version of a plugin.

use std::{fs::File, path::Path, process::ExitCode, sync::Arc, time::Instant};

use bytesize::ByteSize;
use serde_json::json;
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{Fatal, LOCAL_BUCKET, file::FileBody, out::Out, plugin, release::Known};
use crate::{
    admission::Admission,
    circuit::Circuits,
    config::{Bucket, Config, Limits, Place, Plugins, Route, Use, is_plugin_name},
    directory::{Identity, Kind, Lock, Tree},
    event::ObjectEvent,
    io::Body,
    job::{self, Context, Outcome, Shadows},
    key,
    lanes::Lanes,
    made::{Digesting, Made},
    plugin::{Call, CallError, Compiler, Digest, Plugin, short_digest},
    registry::{self, Catalog, History},
    release, route,
    store::{ObjectMeta, Store, local::LocalStore, s3::S3Store},
    text,
};

/// Of a key or a reason on a line.
const MAX_SHOWN: usize = 2_048;

/// What to do.
#[derive(Debug, Clone)]
pub struct How {
    /// The object.
    pub key: String,
    /// A file, or `NAME@DIGEST`.
    pub plugin: String,
    /// Process it for good.
    pub commit: bool,
    /// For programs.
    pub json: bool,
}

/// `gristmill replay …`. Plugins are compiled by `compiler`.
///
/// # Errors
/// When the object or the version is not there, or the version is refused.
pub fn replay(config: &Config, how: &How, compiler: &Compiler) -> Result<ExitCode, Fatal> {
    let version = Version::read(config, &how.plugin)?;
    super::runtime()?.block_on(async {
        match &config.place {
            Place::Directory(directory) if how.commit => {
                let lock = Arc::new(Lock::acquire(directory).map_err(Fatal::failed)?);
                let store = LocalStore::open(&lock, &config.prefixes()).map_err(Fatal::failed)?;
                commit(config, how, version, compiler, store, LOCAL_BUCKET).await
            }
            Place::Directory(directory) => {
                let (tree, meta) = look(directory, &how.key)?;
                let body = || -> Result<Box<dyn Body>, Fatal> {
                    let place = tree.place(&how.key).map_err(Fatal::failed)?;
                    let file = tree.open_file(&place).map_err(|reason| tree.refused("read", &how.key, reason));
                    Ok(Box::new(FileBody::new(File::from(file.map_err(Fatal::failed)?))))
                };
                show(config, how, version, compiler, &meta, LOCAL_BUCKET, body).await
            }
            Place::Bucket(bucket) => {
                let store = super::store(bucket).await;
                if how.commit {
                    return commit(config, how, version, compiler, store, &bucket.name).await;
                }
                look_up(config, how, version, compiler, &store, bucket).await
            }
        }
    })
}

/// The bytes to compile, and what they are called if they have a name.
struct Version {
    name: Option<String>,
    bytes: Vec<u8>,
    shown: String,
}

impl Version {
    fn read(config: &Config, plugin: &str) -> Result<Self, Fatal> {
        let path = Path::new(plugin);
        let shown = text::printable(plugin, MAX_SHOWN);
        let kept = plugin.split_once('@').filter(|(name, _)| is_plugin_name(name) && !path.exists());
        if let Some((name, digest)) = kept {
            let history = history(config)?;
            let digest = history.find(name, digest).map_err(Fatal::failed)?;
            let bytes = history.read(&digest).map_err(Fatal::failed)?;
            return Ok(Self { name: Some(name.to_owned()), bytes, shown });
        }
        let bytes =
            registry::read_named_file(path).map_err(|error| Fatal::Failed(format!("{}: {error}", path.display())))?;
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let name = stem.and_then(release::plugin_of).map(|(name, _)| name.to_owned());
        Ok(Self { name, bytes, shown })
    }

    fn load(&self, name: &str, config: &Config, compiler: &Compiler) -> Result<Plugin, Fatal> {
        let digest = Digest::of(&self.bytes).short();
        Plugin::load(&plugin::engine(config.grants.clone())?, compiler, name, &self.bytes)
            .map_err(|error| Fatal::Failed(format!("{} ({digest}): {error}", self.shown)))
    }

    /// Which of the route's plugins it is a version of: the one of its name, or else the only one.
    fn plugin<'r>(&self, route: Option<&'r Route>) -> Result<&'r str, Vec<&'r str>> {
        let mut names: Vec<&str> = route.iter().flat_map(|route| &route.uses).map(|used| &*used.plugin).collect();
        names.dedup();
        match names.iter().find(|name| Some(**name) == self.name.as_deref()) {
            Some(name) => Ok(name),
            None => match names.as_slice() {
                [only] => Ok(only),
                _ => Err(names),
            },
        }
    }
}

fn history(config: &Config) -> Result<History, Fatal> {
    let folder = super::releases(config).ok_or_else(|| {
        Fatal::Failed("nowhere to look for versions: set `state` in the configuration, or HOME".to_owned())
    })?;
    History::open(&folder).map_err(Fatal::failed)
}

/// A file of local mode, beside a host that may be at work.
fn look(directory: &Path, key: &str) -> Result<(Tree, ObjectMeta), Fatal> {
    let tree = Tree::open(directory)
        .map_err(|reason| Fatal::Failed(format!("cannot open `{}`: {reason}", directory.display())))?;
    let Some(stat) = tree.look(key).map_err(Fatal::failed)? else {
        return Err(Fatal::Failed(format!("`{}` does not exist", tree.display(key))));
    };
    if Kind::of(&stat) != Kind::File {
        return Err(Fatal::Failed(format!("`{}` is {}", tree.display(key), Kind::of(&stat))));
    }
    let identity = Identity::of(&stat);
    let meta = ObjectMeta {
        key: key.to_owned(),
        size: identity.size,
        etag: identity.to_string(),
        version_id: None,
        content_type: key::guess_content_type(key).map(str::to_owned),
        metadata: Vec::new(),
        modified: identity.modified_time(),
    };
    Ok((tree, meta))
}

async fn look_up(
    config: &Config,
    how: &How,
    version: Version,
    compiler: &Compiler,
    store: &S3Store,
    bucket: &Bucket,
) -> Result<ExitCode, Fatal> {
    let object = store.open(&how.key).await.map_err(Fatal::failed)?;
    show(config, how, version, compiler, store.meta(&object), &bucket.name, || Ok(store.body(&object))).await
}

/// Calls the version for each use that the object's route has for it, and throws away what it makes.
async fn show(
    config: &Config,
    how: &How,
    version: Version,
    compiler: &Compiler,
    meta: &ObjectMeta,
    bucket: &str,
    body: impl Fn() -> Result<Box<dyn Body>, Fatal>,
) -> Result<ExitCode, Fatal> {
    let meta = ObjectMeta { key: source_key(config, &how.key)?, ..meta.clone() };
    let route = route::route(&config.routes, &meta, |_| true);
    let destination = route::destination(config, route, &meta.key).map_err(Fatal::failed)?;
    let (name, uses) = match version.plugin(route) {
        Ok(name) => (name, route.iter().flat_map(|route| &route.uses).filter(|used| used.plugin == name).collect()),
        // It may be the first version of all.
        Err(_) => (version.name.as_deref().unwrap_or("plugin"), Vec::new()),
    };
    let plugin = version.load(name, config, compiler)?;
    let without = Use { plugin: name.to_owned(), settings: Arc::default(), limits: Limits::default() };
    let uses: Vec<&Use> = if uses.is_empty() { vec![&without] } else { uses };
    let (mut out, mut code) = (Out::new(), ExitCode::SUCCESS);
    for used in uses {
        let outputs = Digesting::default();
        let call = Call {
            object: job::object_info(bucket, None, &meta, 1),
            body: body()?,
            outputs: Arc::new(outputs.clone()),
            destination: destination.clone(),
            settings: Arc::clone(&used.settings),
            limits: used.limits,
        };
        let started = Instant::now();
        let report = plugin.call(call).await;
        let milliseconds = started.elapsed().as_secs_f64() * 1e3;
        let Some(made) = Made::of(&report, &outputs) else {
            let reason = report.result.err().map_or_else(String::new, |error| error.to_string());
            return Err(Fatal::Failed(format!("the object cannot be read: {reason}")));
        };
        if !["done", "skipped"].contains(&made.verdict) {
            code = ExitCode::from(1);
        }
        let backtrace = match &report.result {
            Err(CallError::Trap { backtrace, .. } | CallError::Limit { backtrace, .. }) => backtrace.as_deref(),
            _ => None,
        };
        if how.json {
            let record = json!({
                "key": how.key,
                "plugin": plugin.version(),
                "settings": *used.settings,
                "made": made,
                "backtrace": backtrace,
                "bytes_read": report.bytes_read,
                "milliseconds": milliseconds,
            });
            out.line(&record.to_string())?;
            continue;
        }
        let key = text::printable(&how.key, MAX_SHOWN);
        let reason = made.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let read = ByteSize(report.bytes_read);
        out.line(&format!(
            "{}  {key}  {name}@{}  {milliseconds:.1} ms, read {read}{reason}",
            made.verdict,
            plugin.digest.short()
        ))?;
        for output in &made.outputs {
            let key = text::printable(&output.key, MAX_SHOWN);
            let size = ByteSize(output.bytes);
            out.line(&format!("  -> {key} ({}, {size}, {})", output.content_type, short_digest(&output.sha256)))?;
        }
        if let Some(frames) = backtrace {
            out.line(&format!("  at {}", frames.replace(" <- ", "\n     ")))?;
        }
    }
    Ok(code)
}

/// What the object's key is, or was before it was moved.
fn source_key(config: &Config, key: &str) -> Result<String, Fatal> {
    if key.starts_with(&config.source_prefix) {
        return Ok(key.to_owned());
    }
    route::possible_source(config, key).ok_or_else(|| {
        let (key, source) = (text::printable(key, MAX_SHOWN), &config.source_prefix);
        Fatal::Failed(format!("`{key}` is neither below `{source}` nor below a destination: give the whole key"))
    })
}

/// The normal way of an object, with this version instead of the current one.
async fn commit<S: Store>(
    config: &Config,
    how: &How,
    version: Version,
    compiler: &Compiler,
    store: S,
    bucket: &str,
) -> Result<ExitCode, Fatal> {
    let source = &config.source_prefix;
    if !how.key.starts_with(source) {
        let key = text::printable(&how.key, MAX_SHOWN);
        return Err(Fatal::Failed(format!(
            "`{key}` is not below `{source}`, so there is nothing to commit: put the object back there first, or leave \
             out --commit"
        )));
    }
    let object = store.open(&how.key).await.map_err(Fatal::failed)?;
    let route = route::route(&config.routes, store.meta(&object), |_| true);
    let name = version.plugin(route).map_err(|names| {
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let shown = &version.shown;
        Fatal::Failed(format!("`{shown}` is no version of a plugin of the object's route, which uses {names}"))
    })?;
    let version = version.load(name, config, compiler)?;
    let catalog = current(config, route, compiler)?.with(version);
    let admission = Admission::new(config, CancellationToken::new());
    let Some(seat) = admission.seats(1).await.pop() else {
        return Err(Fatal::Failed("there is no slot".to_owned()));
    };
    let context = Context {
        store: Arc::new(store),
        bucket: bucket.to_owned(),
        config: Arc::new(config.clone()),
        catalog: watch::channel(Arc::new(catalog)).1,
        lanes: Lanes::on(&Handle::current()),
        circuits: Circuits::new(None),
        shadows: Shadows::default(),
    };
    let event = ObjectEvent {
        bucket: bucket.to_owned(),
        key: how.key.clone(),
        size: None,
        etag: None,
        version_id: None,
        event_time: None,
        event_name: "ObjectCreated:Replay".to_owned(),
    };
    let outcome = job::run(&context, &event, 1, &seat, &CancellationToken::new()).await;
    tell(how, &outcome)
}

/// The plugins as a host would call them: perhaps other versions than those of the files.
fn current(config: &Config, route: Option<&Route>, compiler: &Compiler) -> Result<Catalog, Fatal> {
    let engine = plugin::engine(config.grants.clone())?;
    let directory = match &config.plugins {
        Plugins::BuiltIn => return registry::load_built_in(&engine, compiler, &config.trust).map_err(Fatal::failed),
        Plugins::Directory(directory) => directory,
    };
    let mut catalog = registry::load_directory(&engine, compiler, directory, &config.trust).map_err(Fatal::failed)?;
    let Some(known) = Known::of(config)? else { return Ok(catalog) };
    for used in route.iter().flat_map(|route| &route.uses) {
        let records = known.records().filter(|(plugin, _)| *plugin == used.plugin);
        for stable in records.filter_map(|(_, record)| record.current()) {
            if catalog.get(&used.plugin).is_some_and(|plugin| plugin.digest.to_string() != stable) {
                let loaded = known.history.load(&engine, compiler, &config.trust, &used.plugin, stable);
                let plugin = loaded.map_err(|reason| {
                    Fatal::Failed(format!("version {} of `{}` {reason}", short_digest(stable), used.plugin))
                })?;
                catalog = catalog.with(plugin);
            }
        }
    }
    Ok(catalog)
}

fn tell(how: &How, outcome: &Outcome) -> Result<ExitCode, Fatal> {
    let (verdict, reason) = match outcome {
        Outcome::Processed(_) => ("processed", None),
        Outcome::Skipped(_, reason) => ("skipped", Some(reason.as_str())),
        Outcome::Ignored(reason) => ("ignored", Some(reason.as_str())),
        Outcome::Failed(failure) => (failure.class.as_str(), Some(failure.reason.as_str())),
        Outcome::AlreadyDone => ("already done", None),
        Outcome::Superseded => ("superseded", Some("the object was overwritten meanwhile, try again")),
        Outcome::Vanished => ("vanished", Some("the object is gone")),
        Outcome::Cancelled => ("cancelled", None),
    };
    let committed = match outcome {
        Outcome::Processed(committed) | Outcome::Skipped(committed, _) => Some(committed),
        _ => None,
    };
    let mut out = Out::new();
    if how.json {
        let outputs = committed.iter().flat_map(|committed| &committed.outputs);
        let record = json!({
            "key": how.key,
            "outcome": verdict,
            "reason": reason,
            "destination": committed.map(|committed| &committed.destination),
            "plugins": committed.map(|committed| &committed.plugins),
            "outputs": outputs.map(|(key, bytes)| json!({ "key": key, "bytes": bytes })).collect::<Vec<_>>(),
        });
        out.line(&record.to_string())?;
    } else {
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        out.line(&format!("{verdict}  {}{reason}", text::printable(&how.key, MAX_SHOWN)))?;
        if let Some(committed) = committed {
            for (key, bytes) in &committed.outputs {
                out.line(&format!("  -> {} ({})", text::printable(key, MAX_SHOWN), ByteSize(*bytes)))?;
            }
            out.line(&format!("  moved to {}", text::printable(&committed.destination, MAX_SHOWN)))?;
        }
    }
    Ok(if committed.is_some() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
