//! One call of a plugin: a fresh instance, its budgets, and what came of it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use wasmtime::{
    PoolConcurrencyLimitError, Store, Trap, UpdateDeadline, WasmBacktrace,
    component::{ResourceTable, ResourceTableError},
};

use super::{
    Plugin,
    bindings::gristmill::plugin::types::{self, Failure},
    clock::Clock,
    http::{Caller, Requests},
    imports::{BodyHandle, Guest},
    limits::{Budget, LimitHit, MAX_CALL_BYTES},
    wasi,
};
use crate::{
    config::Limits,
    io::{Body, IoError, OutputMeta, Outputs},
    text,
};

/// What is kept of a reason that a guest gives.
const MAX_REASON: usize = 1 << 10;

/// Room beside the data itself in what one host call may carry (names, metadata).
const CALL_OVERHEAD: usize = 64 << 10;

/// The longest wait that a guest may ask for: the longest visibility timeout of SQS.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(12 * 60 * 60);

/// What a plugin is told of its object; the fields of `object-info` in `wit/plugin.wit`.
pub type ObjectInfo = types::ObjectInfo;

/// Everything that one call needs.
pub struct Call {
    /// What the plugin is told.
    pub object: ObjectInfo,
    /// The object's bytes.
    pub body: Box<dyn Body>,
    /// Where outputs are staged.
    pub outputs: Arc<dyn Outputs>,
    /// The key that the object will be moved to.
    pub destination: String,
    /// Of this use of the plugin.
    pub settings: Arc<serde_json::Map<String, serde_json::Value>>,
    /// What the call may take.
    pub limits: Limits,
}

/// What came of a call.
#[derive(Debug)]
pub struct CallReport {
    /// How it ended.
    pub result: Result<Verdict, CallError>,
    /// In the order of creation: the index is the one that [`Outputs::write`] was given.
    pub outputs: Vec<CreatedOutput>,
    /// Bytes that the guest read.
    pub bytes_read: u64,
    /// Bytes that the guest wrote.
    pub bytes_written: u64,
}

impl CallReport {
    /// Of a call that did not begin.
    fn failed(error: CallError) -> Self {
        Self { result: Err(error), outputs: Vec::new(), bytes_read: 0, bytes_written: 0 }
    }
}

/// An output that a guest created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedOutput {
    /// Its key, and the content type that was given or guessed.
    pub meta: OutputMeta,
    /// Bytes written.
    pub size: u64,
}

/// How a call that worked ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The outputs are complete.
    Done,
    /// Nothing to do, with the reason.
    Skipped(String),
}

/// How a call that did not work ended. Texts of the guest are escaped and cut.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The plugin asked to be called again.
    #[error("{reason}")]
    Retry {
        /// In the plugin's words.
        reason: String,
        /// Not before.
        after: Option<Duration>,
    },
    /// The plugin will never be able to process this object.
    #[error("{0}")]
    Reject(String),
    /// A limit was hit.
    #[error("{limit}")]
    Limit {
        /// Which one.
        limit: LimitHit,
        /// The guest's call stack, innermost first.
        backtrace: Option<String>,
    },
    /// The guest broke: a panic, an out-of-bounds access, misuse of the interface.
    #[error("{message}")]
    Trap {
        /// What happened.
        message: String,
        /// The guest's call stack, innermost first.
        backtrace: Option<String>,
    },
    /// The store failed under the call, which is not the plugin's fault.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Plugin {
    /// Calls `process` in a fresh instance, which is thrown away afterwards.
    ///
    /// Gives way to other tasks every few milliseconds while the guest computes. Dropping the future
    /// ends the guest.
    pub async fn call(&self, call: Call) -> CallReport {
        let Call { object, body, outputs, destination, settings, limits } = call;
        let deadline = Instant::now() + limits.deadline;
        let clock = Clock::new(self.grants.clocks, object.event_time.as_deref());
        let wasi = match wasi::context(self, &clock, &object) {
            Ok(wasi) => wasi,
            Err(error) => return CallReport::failed(call_error(&error, &limits)),
        };
        let (plugin, key): (Arc<str>, Arc<str>) = (self.name.as_str().into(), object.key.as_str().into());
        let caller = Caller { plugin: Arc::clone(&plugin), key: Arc::clone(&key) };
        let requests = Requests::new(self.engine.granted.outbound(), &self.grants, &limits, caller);
        let exceeded = requests.exceeded();
        let mut store = Store::new(
            &self.engine.wasmtime,
            Guest {
                table: handles(&limits),
                wasi,
                clock,
                requests,
                budget: Budget::new(limits),
                bytes_read: 0,
                created: Vec::new(),
                outputs,
                settings,
                destination,
                plugin,
                key,
            },
        );
        store.limiter(|guest| &mut guest.budget);
        store.set_hostcall_fuel(MAX_CALL_BYTES + CALL_OVERHEAD);
        // Bounds the handles that the table knows nothing of: those of a component's own parts, and those
        // lent to a host call, which count a second time while it lasts.
        store.set_max_component_handles((limits.handles as usize).saturating_mul(2));
        store.set_epoch_deadline(1);
        // Ticks drift under load, so they only say when to look at the clock.
        store.epoch_deadline_callback(move |_| {
            if Instant::now() >= deadline {
                return Err(LimitHit::Deadline(limits.deadline).into());
            }
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });

        // The timeout is for a guest that waits in a host call, where no epoch reaches it.
        let ended = tokio::time::timeout_at(deadline, self.process(&mut store, &object, body));
        let cut = |limit| Err(CallError::Limit { limit, backtrace: None });
        let result = tokio::select! {
            biased;
            limit = exceeded => cut(limit),
            ended = ended => ended.unwrap_or_else(|_| cut(LimitHit::Deadline(limits.deadline))),
        };
        let guest = store.into_data();
        // Also where the guest got to its end before it could be ended.
        let result = guest.requests.hit().map_or(result, cut);
        CallReport {
            result,
            outputs: guest.created,
            bytes_read: guest.bytes_read,
            bytes_written: guest.budget.output_bytes,
        }
    }

    async fn process(
        &self,
        store: &mut Store<Guest>,
        object: &ObjectInfo,
        body: Box<dyn Body>,
    ) -> Result<Verdict, CallError> {
        let limits = store.data().budget.limits;
        let run = async {
            let body = store.data_mut().table.push(BodyHandle(body))?;
            let instance = self.pre.instantiate_async(&mut *store).await?;
            instance.call_process(&mut *store, object, body).await
        };
        match run.await.map_err(|error| call_error(&error, &limits))? {
            Ok(types::Verdict::Done) => Ok(Verdict::Done),
            Ok(types::Verdict::Skipped(reason)) => Ok(Verdict::Skipped(text::printable(&reason, MAX_REASON))),
            Err(Failure::Reject(reason)) => Err(CallError::Reject(text::printable(&reason, MAX_REASON))),
            Err(Failure::Retry(retry)) => Err(CallError::Retry {
                reason: text::printable(&retry.reason, MAX_REASON),
                after: retry.after_ms.map(|ms| Duration::from_millis(ms.into()).min(MAX_RETRY_AFTER)),
            }),
        }
    }
}

/// A table for the handles of one call: the body, outputs and WASI's.
fn handles(limits: &Limits) -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(limits.handles as usize);
    table
}

/// Finds out what ended a guest.
fn call_error(error: &wasmtime::Error, limits: &Limits) -> CallError {
    let backtrace = error.downcast_ref::<WasmBacktrace>().and_then(render_backtrace);
    if let Some(io) = error.downcast_ref::<IoError>() {
        return CallError::Io(io.clone());
    }
    if error.is::<PoolConcurrencyLimitError>() {
        // Guests that were given up may hold their places for a moment longer.
        return CallError::Io(IoError::Unavailable("every place for an instance is taken".to_owned()));
    }
    let limit = error.downcast_ref::<LimitHit>().copied().or_else(|| {
        if let Some(ResourceTableError::Full) = error.downcast_ref() {
            return Some(LimitHit::Handles(limits.handles));
        }
        let root = error.root_cause().to_string();
        match error.downcast_ref::<Trap>() {
            Some(Trap::StackOverflow) => Some(LimitHit::Stack),
            // wasmtime keeps these two types to itself; the tests with hostile guests hold the texts.
            None if root.contains("fuel allocated for hostcalls") => Some(LimitHit::CallBytes),
            None if root.contains("store handle limit exceeded") => Some(LimitHit::Handles(limits.handles)),
            _ => None,
        }
    });
    if let Some(limit) = limit {
        return CallError::Limit { limit, backtrace };
    }
    let message = match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => "the plugin aborted, as a panic does (`unreachable` executed)".to_owned(),
        Some(trap) => format!("the plugin trapped: {trap}"),
        None => format!("the plugin failed: {}", text::printable(&error.root_cause().to_string(), MAX_REASON)),
    };
    CallError::Trap { message, backtrace }
}

/// `a <- b <- c`, innermost first, in the guest's own names.
fn render_backtrace(backtrace: &WasmBacktrace) -> Option<String> {
    /// What is kept of a symbol: Rust's can be very long.
    const MAX_SYMBOL: usize = 120;
    let frames: Vec<String> = backtrace
        .frames()
        .iter()
        .map(|frame| match frame.func_name() {
            Some(name) => text::printable(&format!("{:#}", rustc_demangle::demangle(name)), MAX_SYMBOL),
            None => format!("function {}", frame.func_index()),
        })
        .collect();
    (!frames.is_empty()).then(|| frames.join(" <- "))
}
