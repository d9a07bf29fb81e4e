//! What goes wrong in one life of a host, drawn from the seed, and the trace of what happened.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::faults::{Fault, Faults, When};

/// How often each thing goes wrong, per call.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub error: f64,
    pub lost_answer: f64,
    pub delay: f64,
    /// Longer than a visibility timeout.
    pub slow: f64,
    pub hang: f64,
    pub crash: f64,
    /// Of what would keep a message: renewals above all.
    pub unheard: f64,
}

impl Rates {
    pub const NONE: Self =
        Self { error: 0.0, lost_answer: 0.0, delay: 0.0, slow: 0.0, hang: 0.0, crash: 0.0, unheard: 0.0 };

    /// Most seeds have only some kinds of faults, so that no kind hides behind another.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut rate = |high: f64| match rng.u8(..3) {
            0 => 0.0,
            1 => high / 10.0,
            _ => high,
        };
        Self {
            error: rate(0.2),
            lost_answer: rate(0.2),
            delay: rate(0.8),
            slow: rate(0.1),
            hang: rate(0.05),
            crash: rate(0.05),
            unheard: rate(0.9),
        }
    }
}

/// What all lives of one host share.
pub struct Luck {
    rates: Rates,
    /// Crashes that are left.
    crashes: AtomicU32,
    /// Until then the queue hears nothing of what would keep a message.
    unheard_until: Mutex<Option<Instant>>,
}

impl Luck {
    pub fn new(rates: Rates, crashes: u32) -> Self {
        Self { rates, crashes: AtomicU32::new(crashes), unheard_until: Mutex::default() }
    }

    pub fn unheard_for(&self, duration: Duration) {
        *self.unheard_until.lock().unwrap() = Some(Instant::now() + duration);
    }

    fn is_unheard(&self) -> bool {
        self.unheard_until.lock().unwrap().is_some_and(|until| Instant::now() < until)
    }
}

/// What all hosts of one seed share.
pub struct Fate {
    pub rng: Mutex<Rng>,
    /// Each with faults of its own.
    pub hosts: Vec<Luck>,
    /// Nothing goes wrong any more.
    pub calm: AtomicBool,
    pub trace: Trace,
}

/// One life of one host.
pub struct Life {
    pub fate: Arc<Fate>,
    pub host: usize,
    /// From here on no call of this life has an effect.
    pub crashed: CancellationToken,
}

impl Faults for Life {
    fn at(&self, call: &'static str, when: When, subject: &str) -> Fault {
        if self.crashed.is_cancelled() {
            return Fault::Hang;
        }
        let fault = if self.fate.calm.load(Ordering::Relaxed) { Fault::None } else { self.draw(call, when) };
        self.fate.trace.add(Event::Call {
            host: self.host,
            call,
            when,
            subject: subject.to_owned(),
            fault: fault.clone(),
        });
        fault
    }
}

impl Life {
    fn draw(&self, call: &'static str, when: When) -> Fault {
        let trace = &self.fate.trace;
        let luck = &self.fate.hosts[self.host];
        let Luck { rates, crashes, .. } = luck;
        let mut rng = self.fate.rng.lock().unwrap();
        let mut happens = |rate: f64| rate > 0.0 && rng.f64() < rate;
        if happens(rates.crash) && crashes.load(Ordering::Relaxed) > 0 {
            crashes.fetch_sub(1, Ordering::Relaxed);
            trace.add(Event::Told(format!("host {} crashes", self.host)));
            self.crashed.cancel();
            return Fault::Hang;
        }
        if call == "set_visibility" && when == When::Before && (luck.is_unheard() || happens(rates.unheard)) {
            return Fault::Error;
        }
        if happens(if when == When::Before { rates.error } else { rates.lost_answer }) {
            return Fault::Error;
        }
        if happens(rates.hang) {
            // Stores set their own timeouts, and a guest that waits has a deadline; the queue has nobody.
            return match call {
                "open" | "verify" | "publish" | "relocate" | "inspect" => Fault::Delay(Duration::from_secs(600)),
                _ => Fault::Hang,
            };
        }
        if happens(rates.slow) {
            return Fault::Delay(Duration::from_millis(rng.u64(20_000..90_000)));
        }
        if happens(rates.delay) {
            return Fault::Delay(Duration::from_millis(rng.u64(1..3_000)));
        }
        Fault::None
    }
}

/// Something that happened.
#[derive(Debug, Hash)]
pub enum Event {
    Call { host: usize, call: &'static str, when: When, subject: String, fault: Fault },
    Told(String),
}

/// Everything that happened, in order.
pub struct Trace {
    start: Instant,
    events: Mutex<Vec<(Duration, Event)>>,
}

impl Trace {
    pub fn new() -> Self {
        Self { start: Instant::now(), events: Mutex::default() }
    }

    pub fn add(&self, event: Event) {
        self.events.lock().unwrap().push((self.start.elapsed(), event));
    }

    pub fn tell(&self, what: impl fmt::Display) {
        self.add(Event::Told(what.to_string()));
    }

    /// The same for the same events at the same times.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.events.lock().unwrap().hash(&mut hasher);
        hasher.finish()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, event) in &*self.events.lock().unwrap() {
            write!(f, "{:>10.3} s  ", at.as_secs_f64())?;
            match event {
                Event::Call { host, call, when, subject, fault } => {
                    let fault = if *fault == Fault::None { String::new() } else { format!("  {fault:?}") };
                    writeln!(f, "host {host}: {when:?} {call} {subject}{fault}")?;
                }
                Event::Told(what) => writeln!(f, "{what}")?,
            }
        }
        Ok(())
    }
}
