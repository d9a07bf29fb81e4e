//! Where guests run: two lanes, so that a plugin that computes for long holds up nobody.
//!
//! A call begins in the short lane, whose threads ask the system to let them go first, for a moment at a time.
//! One that has computed for longer than [`SHORT`] goes on in the long lane. Together the two lanes have more
//! threads than the machine has cores, so that it is the system that lets a short call through at once, and the
//! long ones have all that is left. There a call needs a turn to compute, as many as there are cores, and
//! whenever a guest gives way the next turn goes to the plugin that has had the least (`turns`).
//!
//! Host calls of a guest wait in the lane but belong to the runtime of everything else: what they start there,
//! a connection say, is driven by threads that no guest ever has.

mod priority;
mod turns;

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinError,
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use self::turns::{Turns, Waiting};

/// What a call may compute before it counts as long: much more than a call that only passes bytes on, and less
/// than what anybody would notice.
const SHORT: Duration = Duration::from_millis(5);

/// A poll of at least this length has used a turn; a shorter one has only looked whether a host call is done.
const USED: Duration = Duration::from_millis(1);

type Boxed<F> = Pin<Box<F>>;

/// The two lanes; see the module.
pub struct Lanes {
    short: Handle,
    long: Handle,
    /// Where the host calls of guests belong.
    control: Handle,
    turns: Arc<Turns>,
    /// Plugins whose last call was a long one. The next one begins where that ended.
    long_ones: Mutex<HashSet<String>>,
}

/// The threads of both lanes.
pub struct Threads([Runtime; 2]);

impl Threads {
    /// As many for each lane as there are cores.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(cores: usize) -> std::io::Result<Self> {
        let lane = |name: &str| {
            let mut lane = Builder::new_multi_thread();
            lane.worker_threads(cores).thread_name(name).enable_all();
            lane
        };
        Ok(Self([lane("short-lane").on_thread_start(moments).build()?, lane("long-lane").build()?]))
    }

    /// The lanes on these threads.
    #[must_use]
    pub fn lanes(&self, control: Handle) -> Arc<Lanes> {
        let Self([short, long]) = self;
        Lanes::new(short.handle().clone(), long.handle().clone(), control, long.metrics().num_workers())
    }

    /// Ends the threads, and waits so long for guests that were given up.
    pub fn shutdown_timeout(self, wait: Duration) {
        self.0.into_iter().for_each(|lane| lane.shutdown_timeout(wait));
    }
}

/// For each thread that must not wait for guests that compute.
pub fn moments() {
    if let Err(error) = priority::moments() {
        tracing::warn!(%error, "cannot ask the system to let a thread go first, long calls may hold up short ones");
    }
}

impl Lanes {
    /// Everything on one runtime: for a simulation.
    #[must_use]
    pub fn on(runtime: &Handle) -> Arc<Self> {
        Self::new(runtime.clone(), runtime.clone(), runtime.clone(), 1)
    }

    fn new(short: Handle, long: Handle, control: Handle, turns: usize) -> Arc<Self> {
        Arc::new(Self { short, long, control, turns: Turns::new(turns), long_ones: Mutex::default() })
    }

    /// Runs a call of the plugin to its end. Dropping the future gives it up.
    ///
    /// # Errors
    /// When the call panics.
    pub async fn run<F>(&self, plugin: &str, call: F) -> Result<F::Output, JoinError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let mut call = Box::pin(call);
        if !self.long_ones().contains(plugin) {
            let short = Short { call: Some(call), used: Duration::ZERO, control: self.control.clone() };
            call = match AbortOnDropHandle::new(self.short.spawn(short)).await? {
                Ended::Done(output) => return Ok(output),
                Ended::Long(call) => call,
            };
            self.long_ones().insert(plugin.to_owned());
        }
        let long = Long {
            call,
            used: Duration::ZERO,
            control: self.control.clone(),
            turns: Arc::clone(&self.turns),
            plugin: plugin.into(),
            waiting: None,
        };
        let (output, used) = AbortOnDropHandle::new(self.long.spawn(long)).await?;
        if used < SHORT {
            self.long_ones().remove(plugin);
        }
        Ok(output)
    }

    fn long_ones(&self) -> MutexGuard<'_, HashSet<String>> {
        self.long_ones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Polls a call, and adds what that takes to what the call has used.
fn poll<F: Future>(call: &mut Boxed<F>, control: &Handle, cx: &mut Context<'_>) -> (Poll<F::Output>, Duration) {
    let _host_calls = control.enter();
    let started = Instant::now();
    let polled = call.as_mut().poll(cx);
    (polled, started.elapsed())
}

/// A call in the short lane.
struct Short<F> {
    /// Until it ends here.
    call: Option<Boxed<F>>,
    used: Duration,
    control: Handle,
}

enum Ended<F: Future> {
    Done(F::Output),
    /// It goes on in the long lane.
    Long(Boxed<F>),
}

impl<F: Future> Future for Short<F> {
    type Output = Ended<F>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { call, used, control } = &mut *self;
        // Nobody polls it after its end.
        let Some(polled) = call.as_mut().map(|call| poll(call, control, cx)) else { return Poll::Pending };
        *used += polled.1;
        match polled.0 {
            Poll::Ready(output) => Poll::Ready(Ended::Done(output)),
            Poll::Pending if *used < SHORT => Poll::Pending,
            Poll::Pending => call.take().map_or(Poll::Pending, |call| Poll::Ready(Ended::Long(call))),
        }
    }
}

/// A call in the long lane. Its output comes with what it has used there.
struct Long<F> {
    call: Boxed<F>,
    used: Duration,
    control: Handle,
    turns: Arc<Turns>,
    plugin: Arc<str>,
    waiting: Option<Waiting>,
}

impl<F: Future> Future for Long<F> {
    type Output = (F::Output, Duration);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { call, used, control, turns, plugin, waiting } = &mut *self;
        let turn = ready!(waiting.get_or_insert_with(|| turns.ask(plugin)).poll(cx));
        *waiting = None;
        let (polled, took) = poll(call, control, cx);
        *used += took;
        if polled.is_pending() && took >= USED {
            // Most likely it gave way. It gets in line before its turn ends, or who has had less than others
            // would never be there when a turn is given. If it waits for something else, the next turn is short.
            *waiting = Some(turns.ask(plugin));
            // Once more after this, to be woken by the turn.
            cx.waker().wake_by_ref();
        }
        turn.end(took);
        polled.map(|output| (output, *used))
    }
}
