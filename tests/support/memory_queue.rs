//! The queue's rules in memory, on tokio's clock, so that a test which pauses it sees redeliveries.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use gristmill::queue::{DeadLetter, Message, Queue, QueueError, Receipt};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::faults::{Faults, NoFaults, When, pass};

/// As long as SQS's longest, which costs nothing on a paused clock.
const LONG_POLL: Duration = Duration::from_secs(20);

/// Clones share the queue.
#[derive(Clone)]
pub struct MemoryQueue {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    faults: Arc<dyn Faults>,
    visibility_timeout: Duration,
    excuses: bool,
    /// Standard queues of SQS keep no order, and take a stale acknowledgement without a word. By chance they
    /// obey it.
    chance: Option<Arc<Mutex<Rng>>>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    live: BTreeMap<u64, Live>,
    dead: Vec<Dead>,
}

/// A message in the queue.
#[derive(Debug, Clone)]
pub struct Live {
    pub key: String,
    pub etag: String,
    pub body: Bytes,
    pub receive_count: u32,
    /// Of these, how many have been excused.
    pub excused: u32,
    pub visible: Instant,
}

/// A message on the dead-letter queue.
#[derive(Debug, Clone)]
pub struct Dead {
    pub key: String,
    pub etag: String,
    pub body: Bytes,
    pub letter: DeadLetter,
}

impl MemoryQueue {
    pub fn new(visibility_timeout: Duration) -> Self {
        Self::with_faults(visibility_timeout, Arc::new(NoFaults))
    }

    pub fn with_faults(visibility_timeout: Duration, faults: Arc<dyn Faults>) -> Self {
        Self {
            state: Arc::default(),
            changed: Arc::default(),
            faults,
            visibility_timeout,
            excuses: false,
            chance: None,
        }
    }

    /// The same queue, which leaves excused deliveries out of account itself, as that of local mode does.
    pub fn excusing(self) -> Self {
        Self { excuses: true, ..self }
    }

    /// The same queue, as somebody sees it to whom other things happen.
    pub fn under(&self, faults: Arc<dyn Faults>) -> Self {
        Self { faults, ..self.clone() }
    }

    /// The same queue without any order, and with acknowledgements that are never refused.
    pub fn disorderly(self, rng: Rng) -> Self {
        Self { chance: Some(Arc::new(Mutex::new(rng))), ..self }
    }

    /// Sends a message unless this version of the key is known, as the local queue does.
    pub fn enqueue(&self, key: &str, etag: &str, body: impl Into<Bytes>) -> bool {
        let mut state = self.state.lock().unwrap();
        let known = state.live.values().any(|message| message.key == key && message.etag == etag)
            || state.dead.iter().any(|dead| dead.key == key && dead.etag == etag);
        if !known {
            state.dead.retain(|dead| dead.key != key);
            drop(state);
            self.send(key, etag, body);
        }
        !known
    }

    /// Sends a message even if there is one like it, as S3 does now and then.
    pub fn send(&self, key: &str, etag: &str, body: impl Into<Bytes>) {
        let mut state = self.state.lock().unwrap();
        let id = state.next_id;
        state.next_id += 1;
        let message = Live {
            key: key.into(),
            etag: etag.into(),
            body: body.into(),
            receive_count: 0,
            excused: 0,
            visible: Instant::now(),
        };
        state.live.insert(id, message);
        self.changed.notify_waiters();
    }

    /// Sends a message that has been received before, by hosts that never settled it.
    pub fn send_received(&self, key: &str, etag: &str, body: impl Into<Bytes>, receive_count: u32) {
        self.send(key, etag, body);
        let mut state = self.state.lock().unwrap();
        if let Some(mut last) = state.live.last_entry() {
            last.get_mut().receive_count = receive_count;
        }
    }

    /// Makes every message visible that is in flight, as SQS does now and then with one of them.
    pub fn redeliver(&self) {
        let now = Instant::now();
        self.state.lock().unwrap().live.values_mut().for_each(|message| message.visible = message.visible.min(now));
        self.changed.notify_waiters();
    }

    /// Makes one message visible that is in flight, whichever the number picks.
    pub fn redeliver_one(&self, pick: usize) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap();
        let in_flight: Vec<&mut Live> =
            state.live.values_mut().filter(|message| message.receive_count > 0 && message.visible > now).collect();
        let number = in_flight.len().max(1);
        if let Some(message) = in_flight.into_iter().nth(pick % number) {
            message.visible = now;
        }
        self.changed.notify_waiters();
    }

    /// Somebody else receives the message that was sent as number `id`, from 0.
    pub fn steal(&self, id: u64) {
        if let Some(message) = self.state.lock().unwrap().live.get_mut(&id) {
            message.receive_count += 1;
            message.visible = Instant::now() + self.visibility_timeout;
        }
    }

    pub fn live(&self) -> Vec<Live> {
        self.state.lock().unwrap().live.values().cloned().collect()
    }

    pub fn dead(&self) -> Vec<Dead> {
        self.state.lock().unwrap().dead.clone()
    }

    fn take(&self, max: usize) -> (Vec<Message>, Option<Instant>) {
        let mut state = self.state.lock().unwrap();
        let now = Instant::now();
        let mut visible: Vec<(Instant, u64)> = state
            .live
            .iter()
            .filter(|(_, message)| message.visible <= now)
            .map(|(id, message)| (message.visible, *id))
            .collect();
        visible.sort_unstable();
        if let Some(chance) = &self.chance {
            chance.lock().unwrap().shuffle(&mut visible);
        }
        let taken = visible
            .into_iter()
            .take(max)
            .filter_map(|(_, id)| {
                let message = state.live.get_mut(&id)?;
                message.receive_count += 1;
                message.visible = now + self.visibility_timeout;
                Some(Message {
                    id: id.to_string(),
                    receipt: Receipt(format!("{id}.{}", message.receive_count)),
                    body: message.body.clone(),
                    receive_count: message.receive_count - message.excused,
                })
            })
            .collect();
        let next = state.live.values().map(|message| message.visible).min();
        (taken, next)
    }

    /// One call on the message that a receipt names, with its faults.
    async fn call<T>(
        &self,
        call: &'static str,
        receipt: &Receipt,
        work: impl FnOnce(&mut State, u64) -> T,
    ) -> Result<T, QueueError> {
        let (id, count) = receipt.0.split_once('.').ok_or(QueueError::Stale)?;
        pass(&*self.faults, call, When::Before, id).await.map_err(QueueError::Unavailable)?;
        let value = {
            let mut state = self.state.lock().unwrap();
            let number = id.parse().map_err(|_| QueueError::Stale)?;
            match state.live.get(&number) {
                Some(message) if message.receive_count.to_string() == count => work(&mut state, number),
                _ => return Err(QueueError::Stale),
            }
        };
        self.changed.notify_waiters();
        pass(&*self.faults, call, When::After, id).await.map_err(QueueError::Unavailable)?;
        Ok(value)
    }
}

impl Queue for MemoryQueue {
    async fn receive(&self, max: usize) -> Result<Vec<Message>, QueueError> {
        pass(&*self.faults, "receive", When::Before, &max.to_string()).await.map_err(QueueError::Unavailable)?;
        let deadline = Instant::now() + LONG_POLL;
        loop {
            let changed = self.changed.notified();
            let (messages, next) = self.take(max);
            if !messages.is_empty() || max == 0 || Instant::now() >= deadline {
                let ids: Vec<&str> = messages.iter().map(|message| &*message.id).collect();
                pass(&*self.faults, "receive", When::After, &ids.join(",")).await.map_err(QueueError::Unavailable)?;
                return Ok(messages);
            }
            let _ = timeout_at(next.map_or(deadline, |next| next.min(deadline)), changed).await;
        }
    }

    async fn acknowledge(&self, receipt: &Receipt) -> Result<(), QueueError> {
        let done = self.call("acknowledge", receipt, |state, id| drop(state.live.remove(&id))).await;
        match (done, &self.chance) {
            (Err(QueueError::Stale), Some(chance)) => {
                let id = receipt.0.split_once('.').and_then(|(id, _)| id.parse().ok());
                if let Some(id) = id.filter(|_| chance.lock().unwrap().bool()) {
                    self.state.lock().unwrap().live.remove(&id);
                }
                Ok(())
            }
            (done, _) => done,
        }
    }

    async fn set_visibility(&self, receipt: &Receipt, after: Duration) -> Result<(), QueueError> {
        self.call("set_visibility", receipt, |state, id| {
            if let Some(message) = state.live.get_mut(&id) {
                message.visible = Instant::now() + after;
            }
        })
        .await
    }

    async fn excuse(&self, message: &Message, after: Duration) -> Result<bool, QueueError> {
        if !self.excuses {
            return self.set_visibility(&message.receipt, after).await.map(|()| false);
        }
        let excuse = self.call("excuse", &message.receipt, |state, id| {
            if let Some(message) = state.live.get_mut(&id) {
                message.excused += 1;
                message.visible = Instant::now() + after;
            }
        });
        excuse.await.map(|()| true)
    }

    async fn dead_letter(&self, message: &Message, letter: &DeadLetter) -> Result<(), QueueError> {
        // Two calls, as in SQS: a crash between leaves the message on both queues.
        self.call("dead_letter", &message.receipt, |state, id| {
            if let Some(Live { key, etag, body, .. }) = state.live.get(&id).cloned() {
                state.dead.push(Dead { key, etag, body, letter: letter.clone() });
            }
        })
        .await?;
        self.call("dead_letter.delete", &message.receipt, |state, id| drop(state.live.remove(&id))).await
    }

    fn visibility_timeout(&self) -> Duration {
        self.visibility_timeout
    }
}
