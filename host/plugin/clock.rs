//! The time that a guest sees.
//!
//! One that is not granted `clocks` has a time of its own: it begins when the object was made, and passes
//! while the guest waits, by as much as it waits, and a little with each look. So what it computes does not
//! depend on when or on how fast a host it runs, it cannot measure anybody else, and a runtime that
//! sleeps until a moment gets there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::{DynPollable, Pollable, bindings::clocks::monotonic_clock, subscribe};

/// By how much a look at a clock of one's own moves it on: time never stands still for who loops until it
/// has passed.
const STEP: Duration = Duration::from_micros(1);

/// The clock of one call.
#[derive(Debug, Clone)]
pub struct Clock {
    /// Since the Unix epoch.
    start: Duration,
    /// What passes, in nanoseconds; `None` when the guest sees the host's time.
    own: Option<Arc<AtomicU64>>,
    started: Instant,
}

impl Clock {
    /// The host's time, or else one that starts with the object's event.
    pub fn new(granted: bool, event_time: Option<&str>) -> Self {
        let event = event_time.and_then(|text| humantime::parse_rfc3339(text).ok());
        let start = event.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        Self { start, own: (!granted).then(Arc::default), started: Instant::now() }
    }

    pub fn resolution() -> Duration {
        STEP
    }

    /// Nanoseconds since the call began.
    fn monotonic(&self) -> u64 {
        match &self.own {
            Some(own) => own.fetch_add(STEP.as_nanos() as u64, Ordering::Relaxed),
            None => u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// Only asked for where the guest has a time of its own.
    pub fn since_epoch(&self) -> Duration {
        self.start.saturating_add(Duration::from_nanos(self.monotonic()))
    }

    fn wait(&self, nanoseconds: u64) -> Wait {
        let until = Instant::now().checked_add(Duration::from_nanos(nanoseconds));
        let own = self.own.clone().map(|own| {
            let target = own.load(Ordering::Relaxed).saturating_add(nanoseconds);
            (own, target)
        });
        Wait { until, own, has_yielded: false }
    }
}

/// How wasmtime finds the clock of a guest.
pub struct MonotonicClock;

impl HasData for MonotonicClock {
    type Data<'a> = ClockView<'a>;
}

/// The clock, and the table for what waits for it.
pub struct ClockView<'a> {
    pub clock: &'a Clock,
    pub table: &'a mut ResourceTable,
}

impl monotonic_clock::Host for ClockView<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.clock.monotonic())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(STEP.as_nanos() as u64)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.subscribe_duration(when.saturating_sub(self.clock.monotonic()))
    }

    fn subscribe_duration(&mut self, nanoseconds: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let wait = self.table.push(self.clock.wait(nanoseconds))?;
        subscribe(self.table, wait)
    }
}

/// Until a moment; `None` is one that never comes.
struct Wait {
    until: Option<Instant>,
    /// What the guest's own clock says afterwards.
    own: Option<(Arc<AtomicU64>, u64)>,
    has_yielded: bool,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Wait {
    async fn ready(&mut self) {
        match self.until {
            // Others get the thread even where there is nothing to wait for; once, as a guest may also just ask.
            Some(until) if until <= Instant::now() => {
                if !std::mem::replace(&mut self.has_yielded, true) {
                    tokio::task::yield_now().await;
                }
            }
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
        if let Some((own, target)) = &self.own {
            own.fetch_max(*target, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = "2026-11-22T09:30:00.000Z";

    #[test]
    fn a_time_of_one_s_own_starts_with_the_event_and_is_the_same_each_time() {
        let look = || {
            let clock = Clock::new(false, Some(EVENT));
            [clock.since_epoch(), clock.since_epoch()]
        };
        let event = Duration::from_secs(1_795_339_800);
        assert_eq!(look(), [event, event + STEP]);
        assert_eq!(look(), look());
        for unknown in [None, Some("yesterday"), Some("1900-01-01T00:00:00Z")] {
            assert_eq!(Clock::new(false, unknown).since_epoch(), Duration::ZERO, "{unknown:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_takes_its_time_and_moves_the_clock_of_one_s_own_by_it() {
        let clock = Clock::new(false, Some(EVENT));
        let before = Instant::now();
        clock.wait(3_000_000_000).ready().await;
        assert_eq!(before.elapsed(), Duration::from_secs(3));
        assert_eq!(clock.monotonic(), 3_000_000_000);
        // One that waits for two moments at the same time has waited for the later one.
        let (mut one, mut two) = (clock.wait(1_000_000_000), clock.wait(2_000_000_000));
        tokio::join!(one.ready(), two.ready());
        assert!((5_000_000_000..5_001_000_000).contains(&clock.monotonic()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_host_s_time_passes_by_itself() {
        let clock = Clock::new(true, Some(EVENT));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.monotonic(), 5_000_000_000);
    }
}
