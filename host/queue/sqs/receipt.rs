//! Receipts of this queue: SQS's handle, and what else has to be known of the delivery that it names.

use std::time::{Duration, SystemTime};

use super::super::Receipt;
use crate::config::MAX_VISIBILITY;

/// SQS counts its 12 hours from when it answered the receive. This much is left for the way of that answer
/// and for clocks that drift apart meanwhile. Less than [`super::super::lease::MAX_LEASE`] leaves, so that a
/// renewal which is cut by it still covers the lease.
const MARGIN: Duration = Duration::from_secs(30);

/// A receipt, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handle {
    /// When the message was received, in seconds since 1970.
    received: u64,
    /// The message group, in a FIFO queue.
    pub(super) group: Option<String>,
    /// What SQS calls the receipt handle.
    pub(super) handle: String,
}

impl Handle {
    pub(super) fn new(received: SystemTime, group: Option<String>, handle: String) -> Self {
        Self { received: seconds(received), group, handle }
    }

    /// The three, separated by spaces, of which group ids have none.
    pub(super) fn to_receipt(&self) -> Receipt {
        let Self { received, group, handle } = self;
        Receipt(format!("{received} {} {handle}", group.as_deref().unwrap_or_default()))
    }

    /// What [`Handle::to_receipt`] wrote.
    pub(super) fn parse(receipt: &Receipt) -> Option<Self> {
        let mut parts = receipt.0.splitn(3, ' ');
        let received = parts.next()?.parse().ok()?;
        let group = parts.next()?;
        let handle = parts.next().filter(|handle| !handle.is_empty())?;
        Some(Self { received, group: (!group.is_empty()).then(|| group.to_owned()), handle: handle.to_owned() })
    }

    /// A visibility timeout as SQS takes it: whole seconds, no shorter than `after`, unless it would go beyond
    /// 12 hours from receipt, which SQS refuses altogether.
    pub(super) fn visibility_seconds(&self, after: Duration, now: SystemTime) -> i32 {
        let held = Duration::from_secs(seconds(now).saturating_sub(self.received));
        whole_seconds(after.min(MAX_VISIBILITY.saturating_sub(held).saturating_sub(MARGIN)))
    }
}

/// Rounded up: a message that comes back early is worse than one that comes back late.
pub(super) fn whole_seconds(duration: Duration) -> i32 {
    let seconds = duration.min(MAX_VISIBILITY).as_nanos().div_ceil(1_000_000_000);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_receipt_is_read_back() {
        for group in [None, Some("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~0aZ".to_owned())] {
            let handle = Handle::new(at(1_700_000_000), group, "AQEB w+/==".to_owned());
            assert_eq!(Handle::parse(&handle.to_receipt()), Some(handle));
        }
    }

    #[test]
    fn what_is_no_receipt_is_none() {
        for receipt in ["", "x", "1", "1.", "1 ", "1  ", "1 g ", "x g h", "-1 g h"] {
            assert_eq!(Handle::parse(&Receipt(receipt.to_owned())), None, "{receipt:?}");
        }
    }

    #[test]
    fn seconds_are_rounded_up() {
        let millis = |millis| whole_seconds(Duration::from_millis(millis));
        assert_eq!([0, 1, 999, 1_000, 1_001].map(millis), [0, 1, 1, 1, 2]);
        assert_eq!((whole_seconds(Duration::from_nanos(1)), whole_seconds(Duration::MAX)), (1, 43_200));
    }

    #[test]
    fn twelve_hours_count_from_receipt() {
        let handle = Handle::new(at(1_000_000), None, "h".to_owned());
        let ask = |after, held: Duration| handle.visibility_seconds(after, at(1_000_000) + held);
        assert_eq!(ask(HOUR, Duration::ZERO), 3_600);
        assert_eq!(ask(12 * HOUR, Duration::ZERO), 43_170);
        assert_eq!(ask(12 * HOUR, 2 * HOUR), 36_000 - 30);
        assert_eq!(ask(HOUR, 12 * HOUR), 0);
        assert_eq!(ask(HOUR, 20 * HOUR), 0);
        // A clock that was set back.
        assert_eq!(Handle::new(at(2_000_000), None, "h".to_owned()).visibility_seconds(HOUR, at(1)), 3_600);
    }

    #[test]
    fn a_lease_is_covered_to_its_end() {
        use crate::queue::lease::MAX_LEASE;
        let handle = Handle::new(at(0), None, "h".to_owned());
        let held = MAX_LEASE - Duration::from_secs(1);
        let renewed = handle.visibility_seconds(HOUR, at(held.as_secs()));
        assert!(held + Duration::from_secs(u64::try_from(renewed).unwrap()) > MAX_LEASE);
    }

    proptest! {
        #[test]
        fn sqs_takes_it(received: u32, now: u32, after: Duration) {
            let handle = Handle::new(at(received.into()), None, "h".to_owned());
            prop_assert!((0..=43_200).contains(&handle.visibility_seconds(after, at(now.into()))));
        }
    }
}
