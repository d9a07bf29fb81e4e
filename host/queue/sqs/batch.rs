//! Deletions and changes of visibility, ten to a request.
//!
//! Whoever hands an entry in waits for the answer to that entry. Once handed in it is carried out, even if
//! nobody waits any more: a caller that is cancelled disturbs no other, and nothing is forgotten.

use std::collections::{HashMap, HashSet, VecDeque};

use aws_sdk_sqs::{
    Client,
    types::{
        BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry as ChangeEntry,
        DeleteMessageBatchRequestEntry as DeleteEntry,
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{Id, JoinError, JoinSet},
    time::{Duration, Instant, sleep_until},
};

use super::{super::QueueError, error};

/// Entries of a request: SQS's own maximum.
pub(super) const MAX_ENTRIES: usize = 10;

/// How long an entry waits for others. Far less than a request takes, and long enough for jobs that end
/// together to share one.
const LINGER: Duration = Duration::from_millis(5);

/// Requests under way. With ten entries each that is far more than the slots of a host settle at a time.
const MAX_FLIGHTS: usize = 8;

/// Entries that wait for a request; beyond that callers wait. Only an outage makes so many.
const MAX_WAITING: usize = 1_024;

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// It is done with.
    Delete,
    /// It becomes visible in so many seconds.
    ChangeVisibility(i32),
}

/// Collects entries into requests. Dropping it lets what was handed in be carried out, which takes as long as
/// the client lets a request take, and then ends its task.
#[derive(Debug)]
pub(super) struct Batcher(mpsc::Sender<Entry>);

#[derive(Debug)]
struct Entry {
    handle: String,
    work: Work,
    done: oneshot::Sender<Result<(), QueueError>>,
}

impl Batcher {
    /// For one queue. The client's timeouts bound how long a request takes.
    pub(super) fn start(client: Client, url: String) -> Self {
        let (sender, entries) = mpsc::channel(MAX_WAITING);
        tokio::spawn(Dispatcher::new(client, url).run(entries));
        Self(sender)
    }

    /// Hands an entry in and waits for what comes of it.
    pub(super) async fn carry_out(&self, handle: String, work: Work) -> Result<(), QueueError> {
        let (done, answer) = oneshot::channel();
        let gone = || QueueError::Unavailable("a request to SQS ended without an answer, see the log".to_owned());
        self.0.send(Entry { handle, work, done }).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// An entry in line.
#[derive(Debug)]
struct Waiting {
    entry: Entry,
    /// When it goes, full batch or not.
    due: Instant,
}

struct Dispatcher {
    client: Client,
    url: String,
    /// The oldest first.
    waiting: VecDeque<Waiting>,
    flights: JoinSet<()>,
    /// The handles of each flight.
    handles: HashMap<Id, Vec<String>>,
}

impl Dispatcher {
    fn new(client: Client, url: String) -> Self {
        Self { client, url, waiting: VecDeque::new(), flights: JoinSet::new(), handles: HashMap::new() }
    }

    async fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        let mut open = true;
        while open || !self.waiting.is_empty() || !self.flights.is_empty() {
            let now = Instant::now();
            self.dispatch(now, !open);
            // What is due and still here waits for a flight to land.
            let due = self.waiting.iter().map(|waiting| waiting.due).find(|due| *due > now);
            tokio::select! {
                entry = entries.recv(), if open && self.waiting.len() < MAX_WAITING => match entry {
                    Some(entry) => self.waiting.push_back(Waiting { entry, due: Instant::now() + LINGER }),
                    None => open = false,
                },
                Some(landed) = self.flights.join_next_with_id() => self.land(landed),
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            }
        }
    }

    /// Sends what is ready, as far as there is room.
    fn dispatch(&mut self, now: Instant, closing: bool) {
        while self.flights.len() < MAX_FLIGHTS {
            let busy: HashSet<&str> = self.handles.values().flatten().map(String::as_str).collect();
            let Some(places) = choose(&self.waiting, &busy, now, closing) else { return };
            let mut batch = Vec::with_capacity(places.len());
            // From behind, so that the places before stay what they are.
            for place in places.into_iter().rev() {
                batch.extend(self.waiting.remove(place).map(|waiting| waiting.entry));
            }
            batch.reverse();
            let handles = batch.iter().map(|entry| entry.handle.clone()).collect();
            let flight = self.flights.spawn(fly(self.client.clone(), self.url.clone(), batch));
            self.handles.insert(flight.id(), handles);
        }
    }

    fn land(&mut self, landed: Result<(Id, ()), JoinError>) {
        let id = match landed {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "a request to SQS panicked");
                error.id()
            }
        };
        self.handles.remove(&id);
    }
}

/// The places of the entries that make up the next request, if one is ready: full, or due, or `closing`. All of
/// a request are of one kind. An entry waits for all before it that are about the same handle, be they in
/// line or `busy`, so that what is asked of a message happens in the order in which it was asked.
fn choose(waiting: &VecDeque<Waiting>, busy: &HashSet<&str>, now: Instant, closing: bool) -> Option<Vec<usize>> {
    let mut before: HashSet<&str> = HashSet::new();
    let (mut deletions, mut changes) = (Vec::new(), Vec::new());
    for (place, Waiting { entry, .. }) in waiting.iter().enumerate() {
        let handle = entry.handle.as_str();
        let kind = match entry.work {
            Work::Delete => &mut deletions,
            Work::ChangeVisibility(_) => &mut changes,
        };
        if before.insert(handle) && !busy.contains(handle) && kind.len() < MAX_ENTRIES {
            kind.push(place);
        }
    }
    let is_ready = |places: &Vec<usize>| {
        let oldest = places.first().and_then(|place| waiting.get(*place));
        oldest.is_some_and(|oldest| closing || oldest.due <= now || places.len() == MAX_ENTRIES)
    };
    // The older kind first, so that neither starves.
    [deletions, changes].into_iter().filter(is_ready).min_by_key(|places| places.first().copied())
}

/// One request, and its answers.
async fn fly(client: Client, url: String, batch: Vec<Entry>) {
    let (mut deletions, mut changes, mut waiting) = (Vec::new(), Vec::new(), Vec::with_capacity(batch.len()));
    for Entry { handle, work, done } in batch {
        waiting.push(done);
        match work {
            Work::Delete => deletions.push(handle),
            Work::ChangeVisibility(seconds) => changes.push((handle, seconds)),
        }
    }
    let answers = match changes.is_empty() {
        true => delete(&client, &url, deletions).await,
        false => change_visibility(&client, &url, changes).await,
    };
    for (done, answer) in waiting.into_iter().zip(answers) {
        // Whoever asked may have stopped to wait.
        let _ = done.send(answer);
    }
}

/// Deletes up to [`MAX_ENTRIES`] messages and answers for each. To delete one that is gone already is no error.
pub(super) async fn delete(client: &Client, url: &str, handles: Vec<String>) -> Vec<Result<(), QueueError>> {
    const ACTION: &str = "sqs:DeleteMessage";
    let count = handles.len();
    let entry =
        |(place, handle): (usize, String)| DeleteEntry::builder().id(place.to_string()).receipt_handle(handle).build();
    let entries = match handles.into_iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>() {
        Ok(entries) => entries,
        Err(error) => return vec![Err(QueueError::Unavailable(format!("{ACTION}: {error}"))); count],
    };
    match client.delete_message_batch().queue_url(url).set_entries(Some(entries)).send().await {
        Ok(output) => {
            let successful = output.successful.iter().map(|entry| entry.id.as_str()).collect();
            each(ACTION, url, count, &successful, &output.failed)
        }
        Err(error) => vec![Err(error::unavailable(ACTION, url, &error)); count],
    }
}

/// Changes the visibility of up to [`MAX_ENTRIES`] messages and answers for each.
pub(super) async fn change_visibility(
    client: &Client,
    url: &str,
    changes: Vec<(String, i32)>,
) -> Vec<Result<(), QueueError>> {
    const ACTION: &str = "sqs:ChangeMessageVisibility";
    let count = changes.len();
    let entry = |(place, (handle, seconds)): (usize, (String, i32))| {
        ChangeEntry::builder().id(place.to_string()).receipt_handle(handle).visibility_timeout(seconds).build()
    };
    let entries = match changes.into_iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>() {
        Ok(entries) => entries,
        Err(error) => return vec![Err(QueueError::Unavailable(format!("{ACTION}: {error}"))); count],
    };
    match client.change_message_visibility_batch().queue_url(url).set_entries(Some(entries)).send().await {
        Ok(output) => {
            let successful = output.successful.iter().map(|entry| entry.id.as_str()).collect();
            each(ACTION, url, count, &successful, &output.failed)
        }
        Err(error) => vec![Err(error::unavailable(ACTION, url, &error)); count],
    }
}

/// What a batch's answer says of each of its `count` entries, whose ids are their places. One that it does not
/// mention has not been carried out, as far as anybody can know.
pub(super) fn each(
    action: &str,
    url: &str,
    count: usize,
    successful: &HashSet<&str>,
    failed: &[BatchResultErrorEntry],
) -> Vec<Result<(), QueueError>> {
    let answer = |place: usize| {
        let id = place.to_string();
        match failed.iter().find(|entry| entry.id == id) {
            Some(entry) => Err(error::refused(action, url, entry)),
            None if successful.contains(id.as_str()) => Ok(()),
            None => Err(QueueError::Unavailable(format!("{action} on {url}: no answer for one message of a batch"))),
        }
    };
    (0..count).map(answer).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(entries: &[(&str, Work)], due: Instant) -> VecDeque<Waiting> {
        let waiting = |(handle, work): &(&str, Work)| Waiting {
            entry: Entry { handle: (*handle).to_owned(), work: *work, done: oneshot::channel().0 },
            due,
        };
        entries.iter().map(waiting).collect()
    }

    const RENEW: Work = Work::ChangeVisibility(30);

    #[test]
    fn a_batch_goes_when_it_is_full_or_due_or_the_last() {
        let now = Instant::now();
        let later = now + LINGER;
        let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), Work::Delete)).collect();
        let none = HashSet::new();
        assert_eq!(choose(&line(&many[..9], later), &none, now, false), None);
        assert_eq!(choose(&line(&many, later), &none, now, false), Some((0..10).collect()));
        assert_eq!(choose(&line(&many[..9], now), &none, now, false), Some((0..9).collect()));
        assert_eq!(choose(&line(&many[..1], later), &none, now, true), Some(vec![0]));
        assert_eq!(choose(&line(&[], now), &none, now, true), None);
    }

    #[test]
    fn what_is_asked_of_a_message_happens_in_order() {
        let now = Instant::now();
        let waiting = line(&[("a", RENEW), ("a", Work::Delete), ("b", Work::Delete), ("c", RENEW)], now);
        assert_eq!(choose(&waiting, &HashSet::new(), now, false), Some(vec![0, 3]));
        assert_eq!(choose(&waiting, &HashSet::from(["a"]), now, false), Some(vec![2]));
        assert_eq!(choose(&waiting, &HashSet::from(["a", "b"]), now, false), Some(vec![3]));
        assert_eq!(choose(&waiting, &HashSet::from(["a", "b", "c"]), now, true), None);
    }

    #[test]
    fn an_entry_that_is_not_mentioned_has_not_been_carried_out() {
        let failed = BatchResultErrorEntry::builder().id("1").code("ReceiptHandleIsInvalid").sender_fault(true);
        let answers = each("sqs:DeleteMessage", "q", 3, &HashSet::from(["0"]), &[failed.build().unwrap()]);
        assert!(
            matches!(&answers[..], [Ok(()), Err(QueueError::Stale), Err(QueueError::Unavailable(_))]),
            "{answers:?}"
        );
    }

    proptest! {
        #[test]
        fn everything_goes_once_and_in_order(entries in prop::collection::vec((0..6_u8, any::<bool>()), 0..60)) {
            let now = Instant::now();
            let names: Vec<String> = entries.iter().map(|(name, _)| name.to_string()).collect();
            let work = |n: usize| if entries[n].1 { Work::Delete } else { Work::ChangeVisibility(i32::try_from(n).unwrap()) };
            let all: Vec<_> = names.iter().enumerate().map(|(n, name)| (name.as_str(), work(n))).collect();
            let mut waiting = line(&all, now);
            let mut expected: HashMap<&str, VecDeque<Work>> = HashMap::new();
            for (name, work) in &all {
                expected.entry(name).or_default().push_back(*work);
            }
            while let Some(places) = choose(&waiting, &HashSet::new(), now, false) {
                prop_assert!((1..=MAX_ENTRIES).contains(&places.len()));
                let mut seen = HashSet::new();
                for place in places.into_iter().rev() {
                    let entry = waiting.remove(place).unwrap().entry;
                    prop_assert!(seen.insert(entry.handle.clone()));
                    let next = expected.get_mut(entry.handle.as_str()).unwrap().pop_front();
                    prop_assert_eq!(next, Some(entry.work));
                }
            }
            prop_assert!(waiting.is_empty());
        }
    }
}
