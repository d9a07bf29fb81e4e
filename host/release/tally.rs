//! How a canary does beside the stable version, and what follows from it.

use std::{collections::VecDeque, time::Duration};

use crate::config::Canary;

/// Durations kept of each version, the newest ones: enough that a median means something, and 8 KiB.
const SAMPLES: usize = 512;

/// Calls of each version before their medians are compared, unless the trial itself is shorter.
const MIN_SAMPLES: usize = 20;

/// A difference of medians below this is noise, however large it is in proportion.
const LATENCY_FLOOR: Duration = Duration::from_millis(1);

/// The calls of one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Side {
    calls: u64,
    failed: u64,
    /// Of calls that worked.
    took: VecDeque<Duration>,
}

impl Side {
    /// Counts a call: how long it took, or nothing if it failed.
    pub fn add(&mut self, took: Option<Duration>) {
        self.calls += 1;
        let Some(took) = took else {
            self.failed += 1;
            return;
        };
        if self.took.len() == SAMPLES {
            self.took.pop_front();
        }
        self.took.push_back(took);
    }

    /// How long half of the newest calls that worked took at most.
    #[must_use]
    pub fn median(&self) -> Option<Duration> {
        let mut took: Vec<Duration> = self.took.iter().copied().collect();
        let middle = took.len().checked_sub(1)? / 2;
        Some(*took.select_nth_unstable(middle).1)
    }
}

/// The calls of both versions during a trial. Calls that the store or a shutdown cut short are not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    stable: Side,
    canary: Side,
    /// Objects on which the canary failed and the stable version did not.
    worse: u64,
}

/// What becomes of a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It becomes the stable version.
    Promote,
    /// It takes no object any more.
    RollBack(Reason),
}

/// In what the canary is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It fails where the stable version does not.
    Failures,
    /// It takes longer.
    Latency,
}

impl Reason {
    /// For the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Latency => "latency",
        }
    }
}

/// What a decision rests on, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// Calls of the stable version.
    pub stable_calls: u64,
    /// Those of them that failed.
    pub stable_failed: u64,
    /// The median of those that did not.
    pub stable_median: Option<Duration>,
    /// Calls of the canary.
    pub canary_calls: u64,
    /// Those of them that failed.
    pub canary_failed: u64,
    /// The median of those that did not.
    pub canary_median: Option<Duration>,
    /// Objects on which only the canary failed.
    pub worse: u64,
}

impl Tally {
    /// A call of the stable version, for an object of its own: how long it took, or nothing if it failed.
    pub fn stable(&mut self, took: Option<Duration>) {
        self.stable.add(took);
    }

    /// A call of the canary that worked.
    pub fn canary_worked(&mut self, took: Duration) {
        self.canary.add(Some(took));
    }

    /// A call of the canary that failed, and whether the stable version then managed the same object. That, and
    /// not how many of other objects it manages, is what the canary is measured by: it shows at once, and an
    /// object that is just bad counts against nobody.
    pub fn canary_failed(&mut self, stable_worked: bool) {
        self.canary.add(None);
        self.worse += u64::from(stable_worked);
    }

    /// What follows from the calls so far, if anything does.
    ///
    /// A failure rate is out of bounds when even a canary that never fails again would end its trial so; no
    /// single early failure decides therefore, unless the margin is that small. Medians are compared when the
    /// trial is over: before, they would say which objects happened to come first.
    #[must_use]
    pub fn decide(&self, rules: &Canary) -> Option<Decision> {
        let after = u64::from(rules.after);
        let allowed = rules.failure_margin * self.canary.calls.max(after) as f64;
        if self.worse as f64 > allowed {
            return Some(Decision::RollBack(Reason::Failures));
        }
        let clean = self.canary.calls - self.canary.failed;
        let enough = MIN_SAMPLES.min(usize::try_from(after).unwrap_or(MIN_SAMPLES));
        if clean < after || self.stable.took.len() < enough {
            return None;
        }
        let (canary, stable) = (self.canary.median()?, self.stable.median()?);
        let is_slow = canary.as_secs_f64() > stable.as_secs_f64() * (1.0 + rules.latency_margin)
            && canary.saturating_sub(stable) >= LATENCY_FLOOR;
        Some(if is_slow { Decision::RollBack(Reason::Latency) } else { Decision::Promote })
    }

    /// For the log.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        Evidence {
            stable_calls: self.stable.calls,
            stable_failed: self.stable.failed,
            stable_median: self.stable.median(),
            canary_calls: self.canary.calls,
            canary_failed: self.canary.failed,
            canary_median: self.canary.median(),
            worse: self.worse,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Canary = Canary { share: 0.1, after: 100, failure_margin: 0.02, latency_margin: 0.5 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// So many calls of both that took so long.
    fn clean(stable: (u64, u64), canary: (u64, u64)) -> Tally {
        let mut tally = Tally::default();
        (0..stable.0).for_each(|_| tally.stable(Some(ms(stable.1))));
        (0..canary.0).for_each(|_| tally.canary_worked(ms(canary.1)));
        tally
    }

    #[test]
    fn a_good_canary_is_promoted_after_so_many_objects_and_not_before() {
        assert_eq!(clean((900, 10), (99, 10)).decide(&RULES), None);
        assert_eq!(clean((900, 10), (100, 10)).decide(&RULES), Some(Decision::Promote));
    }

    #[test]
    fn a_canary_that_fails_where_the_stable_version_works_is_rolled_back_early() {
        let mut tally = clean((20, 10), (3, 10));
        for _ in 0..2 {
            tally.canary_failed(true);
            assert_eq!(tally.decide(&RULES), None, "2 of 100 are within the margin");
        }
        tally.canary_failed(true);
        assert_eq!(tally.decide(&RULES), Some(Decision::RollBack(Reason::Failures)));
        let evidence = tally.evidence();
        assert_eq!((evidence.canary_calls, evidence.canary_failed, evidence.worse), (6, 3, 3));
        assert_eq!((evidence.stable_calls, evidence.stable_median), (20, Some(ms(10))));
    }

    #[test]
    fn objects_that_are_bad_for_both_count_against_nobody() {
        let mut tally = clean((20, 10), (100, 10));
        (0..1_000).for_each(|_| tally.canary_failed(false));
        assert_eq!(tally.decide(&RULES), Some(Decision::Promote));
        let mut tally = clean((20, 10), (99, 10));
        (0..1_000).for_each(|_| tally.canary_failed(false));
        assert_eq!(tally.decide(&RULES), None, "they are no clean objects either");
    }

    #[test]
    fn a_slow_canary_is_rolled_back_at_the_end() {
        assert_eq!(clean((900, 10), (99, 100)).decide(&RULES), None);
        let slow = Some(Decision::RollBack(Reason::Latency));
        assert_eq!(clean((900, 10), (100, 16)).decide(&RULES), slow);
        assert_eq!(clean((900, 10), (100, 15)).decide(&RULES), Some(Decision::Promote));
    }

    #[test]
    fn less_than_a_millisecond_is_noise() {
        let mut tally = Tally::default();
        (0..100).for_each(|_| tally.stable(Some(Duration::from_micros(50))));
        (0..100).for_each(|_| tally.canary_worked(Duration::from_micros(500)));
        assert_eq!(tally.decide(&RULES), Some(Decision::Promote));
    }

    #[test]
    fn nothing_is_compared_with_a_handful() {
        assert_eq!(clean((19, 10), (500, 10)).decide(&RULES), None);
        let short = Canary { after: 3, ..RULES };
        assert_eq!(clean((2, 10), (3, 10)).decide(&short), None);
        assert_eq!(clean((3, 10), (3, 10)).decide(&short), Some(Decision::Promote));
    }

    #[test]
    fn a_margin_of_nothing_forgives_nothing() {
        let mut tally = clean((0, 10), (50, 10));
        tally.canary_failed(true);
        let strict = Canary { failure_margin: 0.0, ..RULES };
        assert_eq!(tally.decide(&strict), Some(Decision::RollBack(Reason::Failures)));
    }

    #[test]
    fn only_the_newest_durations_count() {
        let mut side = Side::default();
        (0..SAMPLES).for_each(|_| side.add(Some(ms(1))));
        assert_eq!(side.median(), Some(ms(1)));
        (0..SAMPLES).for_each(|_| side.add(Some(ms(9))));
        assert_eq!((side.median(), side.took.len()), (Some(ms(9)), SAMPLES));
    }

    proptest! {
        /// Calls as they come, until a decision: a promotion has seen enough clean objects and no more failures
        /// than the margin allows; a rollback for failures has seen more; and every trial with enough calls ends.
        #[test]
        fn decisions_keep_to_the_rules(
            after in 1..60_u32,
            failure_margin in 0.0..0.3_f64,
            latency_margin in 0.0..3.0_f64,
            calls in proptest::collection::vec((any::<bool>(), 0..10_u8, 1..50_u64), 1..400),
        ) {
            let rules = Canary { share: 0.5, after, failure_margin, latency_margin };
            let mut tally = Tally::default();
            for (is_canary, luck, took) in calls {
                match (is_canary, luck) {
                    (true, 0) => tally.canary_failed(true),
                    (true, 1) => tally.canary_failed(false),
                    (true, _) => tally.canary_worked(ms(took)),
                    (false, 0) => tally.stable(None),
                    (false, _) => tally.stable(Some(ms(took))),
                }
                let Evidence { canary_calls, canary_failed, worse, stable_median, canary_median, .. } = tally.evidence();
                let allowed = failure_margin * canary_calls.max(after.into()) as f64;
                match tally.decide(&rules) {
                    None => continue,
                    Some(Decision::Promote) => {
                        prop_assert!(canary_calls - canary_failed >= u64::from(after) && worse as f64 <= allowed);
                    }
                    Some(Decision::RollBack(Reason::Failures)) => prop_assert!(worse as f64 > allowed),
                    Some(Decision::RollBack(Reason::Latency)) => {
                        prop_assert!(canary_median > stable_median && canary_calls >= u64::from(after));
                    }
                }
                return Ok(());
            }
            let Evidence { canary_calls, canary_failed, stable_calls, stable_failed, .. } = tally.evidence();
            prop_assert!(canary_calls - canary_failed < u64::from(after) || stable_calls - stable_failed < 20);
        }
    }
}
