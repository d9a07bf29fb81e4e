//! Back-off, and what becomes of an object that failed, pure.

use std::time::Duration;

use crate::{
    config::{MAX_VISIBILITY, Retry},
    provenance::PluginVersion,
};

/// What kind of failure it was. The names are those of metrics and of the dead-letter queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The plugin asked to be called again.
    Retry,
    /// The plugin trapped: a panic, an overflow of its stack, an illegal access.
    Trap,
    /// The call took longer than it may.
    Deadline,
    /// The call needed more memory than it may have.
    Memory,
    /// The call ran into another of its limits; the reason names it.
    Limit,
    /// The route names a plugin that is not there. It may be dropped in any moment.
    PluginMissing,
    /// The object may not be read. Somebody can mend that.
    Denied,
    /// The host itself ended while it had the object in work.
    Crashed,
    /// The plugin says that it can never work.
    Reject,
    /// Something foreign is stored where a result belongs.
    Conflict,
    /// The message cannot be read.
    Malformed,
    /// The store can never do it: a name too long, for example.
    Impossible,
    /// Store, queue or disk cannot serve now. Not the object's fault.
    Infrastructure,
    /// The plugin fails on most objects, so it gets none for a while. Not the object's fault either.
    CircuitOpen,
}

impl Class {
    /// For filters and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Limit => "limit",
            Self::PluginMissing => "plugin-missing",
            Self::Denied => "denied",
            Self::Crashed => "crashed",
            Self::Reject => "reject",
            Self::Conflict => "conflict",
            Self::Malformed => "malformed",
            Self::Impossible => "impossible",
            Self::Infrastructure => "infrastructure",
            Self::CircuitOpen => "circuit-open",
        }
    }
}

impl Class {
    /// Whether trying again cannot help.
    #[must_use]
    pub fn is_rejection(self) -> bool {
        matches!(self, Self::Reject | Self::Conflict | Self::Malformed | Self::Impossible)
    }

    /// Whether the delivery was no attempt: it says nothing of the object.
    #[must_use]
    pub fn is_excused(self) -> bool {
        matches!(self, Self::Infrastructure | Self::CircuitOpen)
    }
}

/// Why an object was not processed this time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Decides what happens next.
    pub class: Class,
    /// For people.
    pub reason: String,
    /// The plugin, when one had to do with it.
    pub plugin: Option<PluginVersion>,
    /// Not before so long: the plugin's own wish.
    pub after: Option<Duration>,
    /// The guest's call stack at a trap, innermost first.
    pub backtrace: Option<String>,
}

impl Failure {
    /// One that no plugin had to do with, so far.
    pub fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), plugin: None, after: None, backtrace: None }
    }

    /// The same, with the plugin that it happened in.
    #[must_use]
    pub fn by(self, plugin: PluginVersion) -> Self {
        Self { plugin: Some(plugin), ..self }
    }
}

/// What to do with a message whose object failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Let it become visible again.
    Retry {
        /// From now.
        after: Duration,
    },
    /// Move it to the dead-letter queue.
    DeadLetter,
}

/// What becomes of an object that failed at its `attempt`, counted from 1. `jitter` is a random number
/// in [0, 1).
pub fn decide(failure: &Failure, attempt: u32, retry: &Retry, jitter: f64) -> Action {
    let again = || {
        let wish = failure.after.unwrap_or_default();
        Action::Retry { after: back_off(attempt, retry, jitter).max(wish).min(MAX_VISIBILITY) }
    };
    match failure.class {
        // An outage must not carry every object of an hour to the dead letters.
        Class::Infrastructure => again(),
        // Nothing grows here, as each wait is one for the same thing. What is added keeps them apart.
        Class::CircuitOpen => {
            let wait = failure.after.unwrap_or(retry.max).min(MAX_VISIBILITY);
            Action::Retry { after: wait.saturating_add(wait.mul_f64(share(jitter) / 2.0)).min(MAX_VISIBILITY) }
        }
        class if class.is_rejection() || attempt >= retry.max_attempts => Action::DeadLetter,
        _ => again(),
    }
}

/// The wait after failed `attempt`, counted from 1: doubles from `base` to `max`, and of that the upper
/// half is random. Half, and not all of it, so that a retry is never at once ("Exponential Backoff And
/// Jitter" in the AWS Architecture Blog calls this equal jitter).
pub fn back_off(attempt: u32, retry: &Retry, jitter: f64) -> Duration {
    let doublings = attempt.saturating_sub(1);
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    let ceiling = retry.base.saturating_mul(factor).min(retry.max);
    let half = ceiling / 2;
    half.saturating_add(half.mul_f64(share(jitter)))
}

/// A NaN is not greater than anything, and becomes zero with the rest.
fn share(jitter: f64) -> f64 {
    if jitter > 0.0 { jitter.min(1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RETRY: Retry = Retry { max_attempts: 3, base: Duration::from_secs(1), max: Duration::from_secs(300) };

    const ALL: [Class; 13] = [
        Class::Retry,
        Class::Trap,
        Class::Deadline,
        Class::Memory,
        Class::Limit,
        Class::PluginMissing,
        Class::Crashed,
        Class::Reject,
        Class::Conflict,
        Class::Malformed,
        Class::Impossible,
        Class::Infrastructure,
        Class::CircuitOpen,
    ];

    fn failure(class: Class, after: Option<Duration>) -> Failure {
        Failure { after, ..Failure::new(class, "why") }
    }

    #[test]
    fn the_wait_doubles_up_to_its_cap() {
        let at_most = |attempt| back_off(attempt, &RETRY, 1.0).as_secs();
        assert_eq!([1, 2, 3, 4, 9, 10, 33, 34, u32::MAX].map(at_most), [1, 2, 4, 8, 256, 300, 300, 300, 300]);
        assert_eq!(back_off(3, &RETRY, 0.0), Duration::from_secs(2));
        assert_eq!(back_off(0, &RETRY, 0.0), back_off(1, &RETRY, 0.0));
    }

    #[test]
    fn what_can_never_work_is_not_tried_again() {
        for class in [Class::Reject, Class::Conflict, Class::Malformed, Class::Impossible] {
            assert_eq!(decide(&failure(class, None), 1, &RETRY, 0.5), Action::DeadLetter, "{class:?}");
        }
    }

    #[test]
    fn an_outage_uses_no_attempts_up() {
        let action = decide(&failure(Class::Infrastructure, None), 1_000, &RETRY, 1.0);
        assert_eq!(action, Action::Retry { after: RETRY.max });
    }

    #[test]
    fn the_wait_for_a_plugin_uses_no_attempts_up_and_does_not_grow() {
        let after = |attempt, jitter| {
            decide(&failure(Class::CircuitOpen, Some(Duration::from_secs(30))), attempt, &RETRY, jitter)
        };
        assert_eq!(after(1, 0.0), Action::Retry { after: Duration::from_secs(30) });
        assert_eq!(after(1_000, 1.0), Action::Retry { after: Duration::from_secs(45) });
    }

    #[test]
    fn everything_else_is_tried_until_the_attempts_are_used_up() {
        let counted = &ALL[..7];
        for class in counted {
            let failure = failure(*class, None);
            assert_eq!(decide(&failure, 2, &RETRY, 1.0), Action::Retry { after: Duration::from_secs(2) }, "{class:?}");
            assert_eq!(decide(&failure, 3, &RETRY, 1.0), Action::DeadLetter, "{class:?}");
            assert_eq!(decide(&failure, 4, &RETRY, 1.0), Action::DeadLetter, "{class:?}");
        }
    }

    #[test]
    fn a_plugins_wish_is_a_lower_bound_up_to_twelve_hours() {
        let after = |secs| match decide(&failure(Class::Retry, Some(Duration::from_secs(secs))), 1, &RETRY, 1.0) {
            Action::Retry { after } => after.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!([0, 60, 3_600, 43_200, 4_000_000].map(after), [1, 60, 3_600, 43_200, 43_200]);
    }

    #[test]
    fn names_differ() {
        let mut names = ALL.map(Class::as_str).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    proptest! {
        #[test]
        fn a_wait_is_within_its_bounds(
            attempt: u32, base_ms in 1..=43_200_000_u64, max_ms in 1..=43_200_000_u64, jitter: f64,
        ) {
            let retry = Retry { max_attempts: 5, base: Duration::from_millis(base_ms), max: Duration::from_millis(max_ms) };
            let wait = back_off(attempt, &retry, jitter);
            prop_assert!(wait <= retry.max);
            prop_assert!(wait >= retry.base.min(retry.max) / 2);
        }

        #[test]
        fn no_duration_overflows(attempt: u32, base: Duration, max: Duration, wish: Duration, jitter: f64) {
            let retry = Retry { max_attempts: 5, base, max };
            decide(&failure(Class::Infrastructure, Some(wish)), attempt, &retry, jitter);
            decide(&failure(Class::CircuitOpen, Some(wish)), attempt, &retry, jitter);
        }
    }
}
