//! One object, from top to bottom: the commit protocol.
//!
//! Every step may be the last before a crash. The order is what makes that harmless: outputs are staged,
//! then made visible, then the object is moved, and only then does the caller acknowledge the message.
//! Doing any of it twice leaves the same state as doing it once.

mod call;
mod shadow;

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::shadow::{SHADOWS, Shadows};
use self::{
    call::{Ran, Run},
    shadow::Seen,
};
use crate::{
    admission::{Seat, Turn},
    circuit::{Circuits, Pass},
    config::{Config, Use},
    event::ObjectEvent,
    io::IoError,
    key,
    lanes::Lanes,
    made,
    plugin::{CallError, CallReport, CreatedOutput, ObjectInfo, Plugin, Verdict},
    provenance::{PluginVersion, Provenance},
    registry::{Catalog, Versions},
    retry::{Class, Failure},
    route,
    store::{Existing, Expect, ObjectMeta, Store, StoreError},
};

/// How often a write is tried at a key whose content keeps changing under it.
const PLACE_TRIES: u32 = 4;

/// One call may fill this part of the room that the store has for staged outputs.
const STAGING_PART: u64 = 2;

/// When to look again for a plugin that is being compiled: the largest take about as long.
const COMPILING: Duration = Duration::from_secs(15);

/// What all jobs share.
pub struct Context<S> {
    /// The bucket.
    pub store: Arc<S>,
    /// Its name, as plugins see it.
    pub bucket: String,
    /// Routes and prefixes.
    pub config: Arc<Config>,
    /// The plugins; a job takes the snapshot that is current when it starts.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// Where guests run: not among the tasks that poll, renew leases and answer health checks.
    pub lanes: Arc<Lanes>,
    /// Which plugins get no objects for now.
    pub circuits: Arc<Circuits>,
    /// Versions that are only watched.
    pub shadows: Shadows,
}

/// What became of one object.
#[derive(Debug)]
pub enum Outcome {
    /// Results and original are at the destination.
    Processed(Committed),
    /// Every plugin found nothing to do; the original was moved.
    Skipped(Committed, String),
    /// An earlier delivery did it all.
    AlreadyDone,
    /// The object was overwritten meanwhile; the newer one's own event is coming.
    Superseded,
    /// The object is gone, and nothing at the destination says that it was processed.
    Vanished,
    /// Not an object for us, with the reason.
    Ignored(String),
    /// Stopped before anything was committed, because the host drains or the lease was lost.
    Cancelled,
    /// Nothing was moved.
    Failed(Failure),
}

/// What was committed.
#[derive(Debug)]
pub struct Committed {
    /// Where the original went.
    pub destination: String,
    /// Bytes of the original.
    pub size: u64,
    /// Key and bytes of each result.
    pub outputs: Vec<(String, u64)>,
    /// The plugins that ran, at the version they ran at.
    pub plugins: Vec<PluginVersion>,
}

/// Processes one object of the message that has the seat. Until its commit begins it can be stopped through
/// `cancel`; after that it runs to its end.
pub async fn run<S: Store>(
    ctx: &Context<S>,
    event: &ObjectEvent,
    attempt: u32,
    seat: &Seat,
    cancel: &CancellationToken,
) -> Outcome {
    process(ctx, event, attempt, seat, cancel).await.unwrap_or_else(|stopped| match stopped {
        Stopped::Cancelled => Outcome::Cancelled,
        Stopped::Superseded => Outcome::Superseded,
        Stopped::Failed(failure) => Outcome::Failed(failure),
    })
}

/// Why an object did not get to its end.
enum Stopped {
    Cancelled,
    Superseded,
    Failed(Failure),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        let class = match &error {
            // That the source is gone is told apart from this where it is opened.
            StoreError::Superseded | StoreError::NotFound(_) => return Self::Superseded,
            StoreError::Exists(_) => Class::Conflict,
            StoreError::Denied(_) => Class::Denied,
            StoreError::Impossible(_) => Class::Impossible,
            StoreError::Unavailable(_) => Class::Infrastructure,
        };
        Self::Failed(Failure::new(class, error.to_string()))
    }
}

async fn process<S: Store>(
    ctx: &Context<S>,
    event: &ObjectEvent,
    attempt: u32,
    seat: &Seat,
    cancel: &CancellationToken,
) -> Result<Outcome, Stopped> {
    // 1. Is it ours?
    if let Some(reason) = route::guard(&ctx.config, &ctx.bucket, event) {
        return Ok(Outcome::Ignored(reason));
    }

    // 2. Pin its identity: from here on it is this content or none.
    let object = match unless(cancel, ctx.store.open(&event.key)).await? {
        Ok(object) => object,
        Err(StoreError::NotFound(_)) => return unless(cancel, source_is_gone(ctx, event)).await?,
        Err(error) => return Err(error.into()),
    };
    let meta = ctx.store.meta(&object);
    if S::EVERY_VERSION_HAS_AN_EVENT && event.etag.as_ref().is_some_and(|etag| *etag != meta.etag) {
        return Err(Stopped::Superseded);
    }
    let catalog = Arc::clone(&ctx.catalog.borrow());
    // Default routes name the built-in plugins; a directory need not have them.
    let is_usable = |plugin: &str| !ctx.config.has_default_routes || catalog.contains(plugin);
    let route = route::route(&ctx.config.routes, meta, is_usable);
    let destination = route::destination(&ctx.config, route, &meta.key)
        .map_err(|error| Failure::new(Class::Impossible, error.to_string()))?;
    // Only now, as a source that had been moved before the host was stopped is done for all that.
    let max_attempts = ctx.config.retry.max_attempts;
    if attempt > max_attempts {
        let reason =
            format!("was delivered {max_attempts} times and the host was stopped each time before it could finish");
        return Err(Failure::new(Class::Crashed, reason).into());
    }

    // 3. Run the plugins, one after the other. All must succeed. The turn lasts until the results are stored.
    let uses = route.map_or(&[][..], |route| &route.uses);
    let mut turn = unless(cancel, turn(&catalog, uses, seat, meta)).await??;
    let steps = match &mut turn {
        Some(turn) => unless(cancel, run_steps(ctx, turn, event, &object, uses, &destination, attempt)).await??,
        None => Vec::new(),
    };

    // 4. Nothing made from another content than the pinned one may become visible. After this there is no
    // way back. Where nothing was made, the move itself looks.
    if steps.iter().any(|step| !step.outputs.is_empty()) {
        unless(cancel, ctx.store.verify(&object)).await??;
    } else if cancel.is_cancelled() {
        return Err(Stopped::Cancelled);
    }

    // 5. Make the outputs visible.
    for step in &steps {
        for (index, output) in step.outputs.iter().enumerate() {
            let write = Write::Output { staging: &step.staging, index };
            place(ctx, &object, &output.meta.key, write, &provenance(meta, vec![step.plugin.version()])).await?;
        }
    }

    // 6. Move the original. The caller acknowledges.
    let plugins: Vec<PluginVersion> = steps.iter().map(|step| step.plugin.version()).collect();
    place(ctx, &object, &destination, Write::Original, &provenance(meta, plugins.clone())).await?;

    let outputs =
        steps.iter().flat_map(|step| &step.outputs).map(|output| (output.meta.key.clone(), output.size)).collect();
    let skipped: Option<Vec<String>> = steps.iter().map(|step| step.skipped.clone()).collect();
    steps.into_iter().filter_map(|step| step.seen).for_each(|seen| seen.follow(ctx, &destination));
    let committed = Committed { destination, size: meta.size, outputs, plugins };
    Ok(match skipped {
        Some(reasons) if !reasons.is_empty() => Outcome::Skipped(committed, reasons.join("; ")),
        _ => Outcome::Processed(committed),
    })
}

/// Gives up what is under way as soon as it is cancelled. Not for a commit.
async fn unless<T>(cancel: &CancellationToken, work: impl Future<Output = T>) -> Result<T, Stopped> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Stopped::Cancelled),
        done = work => Ok(done),
    }
}

/// One plugin's finished, still invisible work.
struct Step<S: Store> {
    plugin: Arc<Plugin>,
    staging: S::Staging,
    outputs: Vec<CreatedOutput>,
    skipped: Option<String>,
    seen: Option<Seen>,
}

/// Waits for the object's turn at its plugins, if it has any. One that is missing is not waited for.
async fn turn(catalog: &Catalog, uses: &[Use], seat: &Seat, meta: &ObjectMeta) -> Result<Option<Turn>, Stopped> {
    for used in uses {
        find(catalog, used)?;
    }
    if uses.is_empty() {
        return Ok(None);
    }
    let names = uses.iter().map(|used| used.plugin.as_str());
    seat.turn(names, meta.size).await.map(Some).ok_or(Stopped::Cancelled)
}

async fn run_steps<S: Store>(
    ctx: &Context<S>,
    turn: &mut Turn,
    event: &ObjectEvent,
    object: &S::Object,
    uses: &[Use],
    destination: &str,
    attempt: u32,
) -> Result<Vec<Step<S>>, Stopped> {
    // The turn may have taken long to come: what runs are the plugins of now. Found before the first one runs,
    // as a missing plugin should not cost the others' work.
    let catalog = Arc::clone(&ctx.catalog.borrow());
    let versions = uses.iter().map(|used| find(&catalog, used)).collect::<Result<Vec<_>, _>>()?;
    let passes = passes(&ctx.circuits, &versions)?;
    let mut made_by: HashMap<String, String> = HashMap::new();
    let mut steps = Vec::with_capacity(uses.len());
    let most = ctx.store.room().await / STAGING_PART;
    for (((index, used), versions), pass) in uses.iter().enumerate().zip(&versions).zip(passes) {
        let run = Run { ctx, turn: &*turn, event, object, used, destination, attempt, most };
        let Ran { plugin, staging, report: CallReport { result, outputs, .. }, seen, .. } =
            run.through(versions).await?;
        if uses[index + 1..].iter().all(|later| later.plugin != used.plugin) {
            turn.is_done_with(&used.plugin);
        }
        // What a canary manages says nothing of the stable version, whose circuit it is.
        let is_stable = plugin.digest == versions.stable.digest;
        if is_stable && matches!(result, Ok(_) | Err(CallError::Reject(_))) {
            pass.worked(&event.key);
        }
        let (outputs, skipped) = match result {
            Ok(Verdict::Done) => (outputs, None),
            Ok(Verdict::Skipped(reason)) => (Vec::new(), Some(reason)),
            Err(CallError::Io(IoError::Superseded)) => return Err(Stopped::Superseded),
            Err(error) => {
                // What is wrong with a version that is gone is of no interest.
                ctx.store.verify(object).await?;
                if let Some(seen) = seen {
                    seen.follow(ctx, &event.key);
                }
                let failure = call_failure(&plugin, error);
                let is_its_fault = failure.plugin.is_some() && !failure.class.is_rejection();
                return Err(if is_its_fault { pass.failed(&event.key, failure) } else { failure }.into());
            }
        };
        for output in &outputs {
            if let Some(other) = made_by.insert(output.meta.key.clone(), plugin.name.clone()) {
                let reason = format!(
                    "plugins `{other}` and `{}` both made `{}`: give one of them another destination or name",
                    plugin.name, output.meta.key
                );
                return Err(Failure::new(Class::Conflict, reason).by(plugin.version()).into());
            }
        }
        steps.push(Step { plugin, staging, outputs, skipped, seen });
    }
    Ok(steps)
}

/// For the stable version of each of them, in the same order. One that comes twice gets the same twice: a probe is
/// one object.
fn passes(circuits: &Arc<Circuits>, versions: &[Versions]) -> Result<Vec<Arc<Pass>>, Failure> {
    let mut passes: Vec<Arc<Pass>> = Vec::with_capacity(versions.len());
    for Versions { stable, .. } in versions {
        let pass = match versions.iter().zip(&passes).find(|(before, _)| before.stable.name == stable.name) {
            Some((_, pass)) => Arc::clone(pass),
            None => Arc::new(circuits.pass(stable.version())?),
        };
        passes.push(pass);
    }
    Ok(passes)
}

fn find(catalog: &Catalog, used: &Use) -> Result<Versions, Failure> {
    let missing = || {
        if catalog.is_compiling(&used.plugin) {
            let reason = format!("plugin `{}` is still being compiled", used.plugin);
            return Failure { after: Some(COMPILING), ..Failure::new(Class::PluginMissing, reason) };
        }
        let reason = format!("no plugin `{0}` is loaded: put a good `{0}.wasm` into the plugin directory", used.plugin);
        Failure::new(Class::PluginMissing, reason)
    };
    catalog.versions(&used.plugin).ok_or_else(missing)
}

/// The source does not exist. Either an earlier delivery moved it and could not acknowledge, or somebody
/// took it away.
async fn source_is_gone<S: Store>(ctx: &Context<S>, event: &ObjectEvent) -> Result<Outcome, Stopped> {
    for destination in route::possible_destinations(&ctx.config, &event.key) {
        let Some(existing) = ctx.store.inspect(&destination).await? else { continue };
        let done = existing.provenance.is_some_and(|from| {
            from.is_of(&event.key) && event.etag.as_ref().is_none_or(|etag| *etag == from.source_etag)
        });
        if done {
            return Ok(Outcome::AlreadyDone);
        }
    }
    Ok(Outcome::Vanished)
}

/// What is written at the destination.
enum Write<'a, S: Store> {
    Output { staging: &'a S::Staging, index: usize },
    Original,
}

/// Writes at `key` without overwriting anything foreign: what is there must be missing, or come from the
/// same source key (an earlier run, or an older upload).
async fn place<S: Store>(
    ctx: &Context<S>,
    object: &S::Object,
    key: &str,
    write: Write<'_, S>,
    from: &Provenance,
) -> Result<(), Stopped> {
    let mut expect = Expect::Absent;
    for _ in 0..PLACE_TRIES {
        let written = match &write {
            Write::Output { staging, index } => ctx.store.publish(staging, *index, &expect).await,
            Write::Original => ctx.store.relocate(object, key, from, &expect).await,
        };
        match written {
            Ok(()) => return Ok(()),
            Err(StoreError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
        expect = match ctx.store.inspect(key).await? {
            None => Expect::Absent,
            Some(Existing { etag, provenance: Some(other) }) if other.is_of(&from.source_key) => {
                // Made from an older upload, or from a newer one that overtook us.
                if other.source_etag != from.source_etag {
                    ctx.store.verify(object).await?;
                }
                Expect::Etag(etag)
            }
            Some(there) => {
                let owner = match there.provenance {
                    Some(other) => format!("`{}` was made from `{}`", key, other.source_key),
                    None => format!("`{key}` was not put there by this host"),
                };
                let reason = format!(
                    "{owner}, and is not overwritten: rename the source, or move that away and `touch` the source"
                );
                return Err(Failure::new(Class::Conflict, reason).into());
            }
        };
    }
    Err(Failure::new(Class::Infrastructure, format!("`{key}` kept changing while it was written")).into())
}

fn provenance(source: &ObjectMeta, plugins: Vec<PluginVersion>) -> Provenance {
    Provenance {
        source_key: source.key.clone(),
        source_etag: source.etag.clone(),
        source_version: source.version_id.clone(),
        plugins,
    }
}

/// What a plugin is told of an object.
pub fn object_info(bucket: &str, event_time: Option<&str>, meta: &ObjectMeta, attempt: u32) -> ObjectInfo {
    let name = key::name(&meta.key);
    ObjectInfo {
        bucket: bucket.to_owned(),
        key: meta.key.clone(),
        name: name.to_owned(),
        stem: key::stem(name).to_owned(),
        size: meta.size,
        etag: meta.etag.clone(),
        version_id: meta.version_id.clone(),
        content_type: meta.content_type.clone(),
        metadata: meta.metadata.clone(),
        event_time: event_time.map(str::to_owned),
        attempt,
    }
}

fn call_failure(plugin: &Plugin, error: CallError) -> Failure {
    let failure = Failure::new(made::class(&error), error.to_string());
    let failure = match error {
        CallError::Retry { after, .. } => Failure { after, ..failure },
        CallError::Reject(_) => failure,
        CallError::Limit { backtrace, .. } | CallError::Trap { backtrace, .. } => Failure { backtrace, ..failure },
        CallError::Io(_) => return failure,
    };
    failure.by(plugin.version())
}

/// A bug of ours in a host call. The object is kept and tried again, like after a trap.
fn host_panic(plugin: &Plugin, error: &tokio::task::JoinError) -> Failure {
    Failure::new(Class::Trap, format!("the host failed under the plugin: {error}")).by(plugin.version())
}
