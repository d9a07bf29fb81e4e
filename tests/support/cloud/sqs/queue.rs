//! One queue: its messages and SQS's rules about them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// 12 hours, in seconds: the longest visibility timeout, and the longest of all of a delivery together.
const LONGEST_VISIBILITY: u64 = 43_200;

/// What a request is answered instead of being carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
}

pub fn refuse<T>(code: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

/// Of a message: what the sender has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// `String`, `Number` or `Binary`.
    pub kind: String,
    pub value: String,
}

/// A message to be sent.
#[derive(Debug, Clone, Default)]
pub struct NewMessage {
    pub body: Arc<str>,
    pub attributes: BTreeMap<String, Attribute>,
    /// In seconds.
    pub delay: Option<u64>,
    pub group: Option<String>,
    pub deduplication: Option<String>,
}

/// A message in the queue. Times are milliseconds since 1970.
#[derive(Debug, Clone)]
pub struct Stored {
    pub id: String,
    pub body: Arc<str>,
    pub attributes: BTreeMap<String, Attribute>,
    pub group: Option<String>,
    pub deduplication: Option<String>,
    pub sent: u64,
    pub first_received: Option<u64>,
    pub received: u64,
    pub receive_count: u32,
    pub visible: u64,
}

pub struct Queue {
    pub name: String,
    pub arn: String,
    /// As they were set.
    pub settings: BTreeMap<String, String>,
    messages: BTreeMap<u64, Stored>,
    /// By when they become visible.
    order: BTreeSet<(u64, u64)>,
    next: u64,
    /// What a FIFO queue has seen; AWS forgets after five minutes.
    seen: HashMap<String, String>,
}

impl Queue {
    pub fn new(name: &str, arn: String) -> Self {
        let (messages, order, seen) = (BTreeMap::new(), BTreeSet::new(), HashMap::new());
        Self { name: name.to_owned(), arn, settings: BTreeMap::new(), messages, order, next: 0, seen }
    }

    pub fn is_fifo(&self) -> bool {
        self.name.ends_with(".fifo")
    }

    pub fn setting(&self, name: &str, default: u64) -> u64 {
        self.settings.get(name).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// The dead-letter queue's ARN, and how often a message may be received before.
    pub fn redrive(&self) -> Option<(String, u32)> {
        let policy: serde_json::Value = serde_json::from_str(self.settings.get("RedrivePolicy")?).ok()?;
        let count = &policy["maxReceiveCount"];
        let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
        Some((policy["deadLetterTargetArn"].as_str()?.to_owned(), u32::try_from(count).ok()?))
    }

    pub fn messages(&self) -> impl Iterator<Item = &Stored> {
        self.messages.values()
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// When the next message becomes visible.
    pub fn next_visible(&self) -> Option<u64> {
        self.order.first().map(|(visible, _)| *visible)
    }

    /// Answers the message's id.
    pub fn send(&mut self, message: NewMessage, now: u64) -> Result<String, Refusal> {
        self.check(&message)?;
        if let Some(known) = message.deduplication.as_ref().and_then(|id| self.seen.get(id)) {
            return Ok(known.clone());
        }
        let id = format!("{:032x}", fastrand::u128(..));
        if let Some(deduplication) = &message.deduplication {
            self.seen.insert(deduplication.clone(), id.clone());
        }
        let delay = message.delay.unwrap_or_else(|| self.setting("DelaySeconds", 0));
        self.put(Stored {
            id: id.clone(),
            body: message.body,
            attributes: message.attributes,
            group: message.group,
            deduplication: message.deduplication,
            sent: now,
            first_received: None,
            received: 0,
            receive_count: 0,
            visible: now + delay * 1_000,
        });
        Ok(id)
    }

    /// Adds a message as it is.
    pub fn put(&mut self, message: Stored) {
        self.order.insert((message.visible, self.next));
        self.messages.insert(self.next, message);
        self.next += 1;
    }

    fn check(&self, message: &NewMessage) -> Result<(), Refusal> {
        let allowed =
            |text: &str| text.chars().all(|c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..));
        if message.body.is_empty() {
            return refuse("MissingParameter", "The request must contain the parameter MessageBody.");
        }
        if !allowed(&message.body) {
            return refuse("InvalidMessageContents", "Invalid characters found in the message body.");
        }
        if message.attributes.len() > 10 {
            return refuse("InvalidParameterValue", "Number of message attributes exceeds the allowed maximum [10].");
        }
        let mut size = message.body.len();
        for (name, Attribute { kind, value }) in &message.attributes {
            size += name.len() + kind.len() + value.len();
            let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
            if !is_name || name.is_empty() || name.len() > 256 || value.is_empty() || !allowed(value) {
                return refuse("InvalidParameterValue", format!("The message attribute '{name}' is not valid."));
            }
            let is_number = value.parse::<f64>().is_ok();
            if !matches!((kind.as_str(), is_number), ("String", _) | ("Number", true)) {
                return refuse("InvalidParameterValue", format!("The type of message attribute '{name}' is invalid."));
            }
        }
        let limit = self.setting("MaximumMessageSize", 1 << 20);
        if size as u64 > limit {
            let message =
                format!("One or more parameters are invalid. Reason: Message must be shorter than {limit} bytes.");
            return refuse("InvalidParameterValue", message);
        }
        match (self.is_fifo(), &message.group, &message.deduplication) {
            (true, None, _) => refuse("MissingParameter", "The request must contain the parameter MessageGroupId."),
            (true, _, None) => {
                refuse("InvalidParameterValue", "The queue should have ContentBasedDeduplication enabled.")
            }
            _ => Ok(()),
        }
    }

    /// Takes up to `max` messages that are visible, the longest visible first, each with its receipt. Those
    /// that have been received too often leave the queue and are answered apart.
    pub fn receive(&mut self, max: usize, visibility: u64, now: u64) -> (Vec<(String, Stored)>, Vec<Stored>) {
        let (mut taken, mut moved) = (Vec::new(), Vec::new());
        let limit = self.redrive().map(|(_, limit)| limit);
        let in_flight = |message: &&Stored| message.visible > now && message.receive_count > 0;
        let blocked: HashSet<String> = match self.is_fifo() {
            true => self.messages.values().filter(in_flight).filter_map(|message| message.group.clone()).collect(),
            false => HashSet::new(),
        };
        // Of a group that is blocked there may be any number in front.
        let looked_at = if self.is_fifo() { usize::MAX } else { max };
        let visible: Vec<(u64, u64)> = self.order.range(..=(now, u64::MAX)).take(looked_at).copied().collect();
        for place in visible {
            if taken.len() == max {
                break;
            }
            let Some(mut message) = self.messages.remove(&place.1) else { continue };
            if message.group.as_ref().is_some_and(|group| blocked.contains(group)) {
                self.messages.insert(place.1, message);
                continue;
            }
            self.order.remove(&place);
            if limit.is_some_and(|limit| message.receive_count >= limit) {
                moved.push(message);
                continue;
            }
            message.receive_count += 1;
            message.received = now;
            message.first_received.get_or_insert(now);
            message.visible = now + visibility * 1_000;
            self.order.insert((message.visible, place.1));
            taken.push((format!("AQEB/{}/{}", place.1, message.receive_count), message.clone()));
            self.messages.insert(place.1, message);
        }
        (taken, moved)
    }

    /// What a receipt names, if the message is still there. On a standard queue of AWS a receipt of an earlier
    /// delivery may or may not still work; here it does not, so that tests see whoever relies on it.
    fn find(&self, receipt: &str) -> Result<Option<u64>, Refusal> {
        let parsed = receipt.strip_prefix("AQEB/").and_then(|rest| rest.split_once('/'));
        let parsed = parsed.and_then(|(place, count)| Some((place.parse().ok()?, count.parse::<u32>().ok()?)));
        let invalid = || {
            refuse(
                "ReceiptHandleIsInvalid",
                format!("The input receipt handle \"{receipt}\" is not a valid receipt handle."),
            )
        };
        match parsed {
            Some((place, count)) if place < self.next => match self.messages.get(&place) {
                Some(message) if message.receive_count != count => invalid(),
                Some(_) => Ok(Some(place)),
                None => Ok(None),
            },
            _ => invalid(),
        }
    }

    /// As in AWS, what is gone may be deleted again.
    pub fn delete(&mut self, receipt: &str) -> Result<(), Refusal> {
        if let Some(place) = self.find(receipt)?
            && let Some(message) = self.messages.remove(&place)
        {
            self.order.remove(&(message.visible, place));
        }
        Ok(())
    }

    pub fn change_visibility(&mut self, receipt: &str, seconds: u64, now: u64) -> Result<(), Refusal> {
        let wrong = |reason: &str| {
            let message = format!("Value {seconds} for parameter VisibilityTimeout is invalid. Reason: {reason}");
            refuse("InvalidParameterValue", message)
        };
        if seconds > LONGEST_VISIBILITY {
            return wrong("Must be between 0 and 43200, if provided.");
        }
        let Some(place) = self.find(receipt)? else {
            let reason = "Message does not exist or is not available for visibility timeout change.";
            let message = format!("Value {receipt} for parameter ReceiptHandle is invalid. Reason: {reason}");
            return refuse("InvalidParameterValue", message);
        };
        let Some(message) = self.messages.get_mut(&place) else { return Ok(()) };
        if message.visible <= now {
            return refuse("MessageNotInflight", "The message referred to isn't in flight.");
        }
        if now.saturating_sub(message.received) + seconds * 1_000 > LONGEST_VISIBILITY * 1_000 {
            return wrong("Total VisibilityTimeout for the message is beyond the limit [43200 seconds]");
        }
        self.order.remove(&(message.visible, place));
        message.visible = now + seconds * 1_000;
        self.order.insert((message.visible, place));
        Ok(())
    }

    pub fn purge(&mut self) {
        self.messages.clear();
        self.order.clear();
    }
}
