//! SQS: the JSON protocol (`application/x-amz-json-1.0`).
//!
//! Answers have no MD5 sums, which the SDK does not ask for.

mod queue;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use serde_json::{Map, Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

pub use self::queue::Attribute;
use self::queue::{NewMessage, Queue, Refusal, Stored, refuse};
use super::{Answer, Asked, Fault};

const ACCOUNT: &str = "123456789012";
const REGION: &str = "us-east-1";

/// All queues.
pub struct Sqs {
    /// Where queue URLs begin.
    endpoint: String,
    state: Mutex<State>,
    /// Whenever a message may have become visible.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// By name.
    queues: BTreeMap<String, Queue>,
    /// How far the clock is ahead.
    ahead: Duration,
    longest_wait: Option<Duration>,
}

/// A message, as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub id: String,
    pub body: Arc<str>,
    pub attributes: BTreeMap<String, Attribute>,
    pub group: Option<String>,
    pub receive_count: u32,
    /// Zero when it is visible.
    pub visible_in: Duration,
}

impl State {
    /// In milliseconds since 1970.
    fn now(&self) -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + self.ahead;
        u64::try_from(now.as_millis()).unwrap()
    }

    /// By name, URL or ARN.
    fn queue(&mut self, queue: &str) -> Result<&mut Queue, Refusal> {
        let missing = "The specified queue does not exist.".to_owned();
        self.queues.get_mut(name(queue)).ok_or(Refusal { code: "QueueDoesNotExist", message: missing })
    }
}

fn name(queue: &str) -> &str {
    queue.rsplit(['/', ':']).next().unwrap_or(queue)
}

/// For tests: queues are named by name, URL or ARN.
impl Sqs {
    pub fn new(endpoint: &str) -> Self {
        Self { endpoint: endpoint.to_owned(), state: Mutex::default(), changed: Notify::new() }
    }

    /// Answers its URL.
    pub fn create_queue(&self, name: &str) -> String {
        let queue = Queue::new(name, format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"));
        self.lock().queues.entry(name.to_owned()).or_insert(queue);
        self.url(name)
    }

    /// Messages that were received so often move to the dead-letter queue instead of being received once more.
    pub fn redrive(&self, queue: &str, dead: &str, max_receives: u32) {
        let arn = self.arn(dead);
        let policy = json!({ "deadLetterTargetArn": arn, "maxReceiveCount": max_receives }).to_string();
        self.set(queue, "RedrivePolicy", &policy);
    }

    /// Sets an attribute of the queue.
    pub fn set(&self, queue: &str, attribute: &str, value: &str) {
        self.lock().queue(queue).unwrap().settings.insert(attribute.to_owned(), value.to_owned());
    }

    pub fn arn(&self, queue: &str) -> String {
        self.lock().queue(queue).unwrap().arn.clone()
    }

    pub fn send(&self, queue: &str, body: impl Into<Arc<str>>) {
        let mut state = self.lock();
        let now = state.now();
        state.queue(queue).unwrap().send(NewMessage { body: body.into(), ..NewMessage::default() }, now).unwrap();
        drop(state);
        self.changed.notify_waiters();
    }

    /// In the order in which they were sent.
    pub fn messages(&self, queue: &str) -> Vec<Shown> {
        let mut state = self.lock();
        let now = state.now();
        let show = |message: &Stored| Shown {
            id: message.id.clone(),
            body: Arc::clone(&message.body),
            attributes: message.attributes.clone(),
            group: message.group.clone(),
            receive_count: message.receive_count,
            visible_in: Duration::from_millis(message.visible.saturating_sub(now)),
        };
        state.queue(queue).unwrap().messages().map(show).collect()
    }

    pub fn count(&self, queue: &str) -> usize {
        self.lock().queue(queue).unwrap().len()
    }

    /// Lets so much time pass for what is invisible.
    pub fn advance(&self, by: Duration) {
        self.lock().ahead += by;
        self.changed.notify_waiters();
    }

    /// No long poll takes longer than this, whatever it asks for.
    pub fn longest_wait(&self, wait: Duration) {
        self.lock().longest_wait = Some(wait);
    }

    /// The SDK, set up for this server, and quick to try again.
    pub fn client(&self) -> aws_sdk_sqs::Client {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(&self.endpoint)
            .region(Region::new(REGION))
            .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(10)))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"));
        aws_sdk_sqs::Client::from_conf(config.build())
    }

    fn url(&self, name: &str) -> String {
        format!("{}/{ACCOUNT}/{name}", self.endpoint)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The service.
impl Sqs {
    /// A call as the `x-amz-target` names it.
    pub async fn answer(&self, operation: &str, asked: &Asked, fault: &Fault) -> Answer {
        let failing = match fault {
            Fault::Error { status, code } => return error(*status, code, "a fault"),
            Fault::FailEntries(places) => places.as_slice(),
            _ => &[],
        };
        let Ok(input) = serde_json::from_slice::<Value>(&asked.body) else {
            return error(400, "SerializationException", "the body is not JSON");
        };
        let answer = match operation {
            "ReceiveMessage" => self.receive(&input).await,
            _ => self.carry_out(operation, &input, failing),
        };
        match answer {
            Ok(answer) => Answer::new(200, answer.to_string()).header("content-type", "application/x-amz-json-1.0"),
            Err(Refusal { code, message }) => error(400, code, &message),
        }
    }

    fn carry_out(&self, operation: &str, input: &Value, failing: &[usize]) -> Result<Value, Refusal> {
        let answer = match operation {
            "CreateQueue" => self.create(input),
            "GetQueueUrl" => {
                let name = text(input, "QueueName")?;
                self.lock().queue(&name)?;
                Ok(json!({ "QueueUrl": self.url(&name) }))
            }
            "GetQueueAttributes" => self.attributes(input),
            "SetQueueAttributes" => {
                let mut state = self.lock();
                let queue = state.queue(&text(input, "QueueUrl")?)?;
                queue.settings.extend(settings(input));
                Ok(json!({}))
            }
            "PurgeQueue" => {
                self.lock().queue(&text(input, "QueueUrl")?)?.purge();
                Ok(json!({}))
            }
            "SendMessage" | "DeleteMessage" | "ChangeMessageVisibility" => self.entry(operation, input, input),
            "SendMessageBatch" | "DeleteMessageBatch" | "ChangeMessageVisibilityBatch" => {
                self.batch(operation.trim_end_matches("Batch"), input, failing)
            }
            other => refuse("InvalidAction", format!("{other} is not there")),
        };
        self.changed.notify_waiters();
        answer
    }

    fn create(&self, input: &Value) -> Result<Value, Refusal> {
        let url = self.create_queue(&text(input, "QueueName")?);
        self.lock().queue(&url)?.settings.extend(settings(input));
        Ok(json!({ "QueueUrl": url }))
    }

    fn attributes(&self, input: &Value) -> Result<Value, Refusal> {
        let mut state = self.lock();
        let now = state.now();
        let queue = state.queue(&text(input, "QueueUrl")?)?;
        let (mut visible, mut hidden, mut delayed) = (0_u64, 0_u64, 0_u64);
        for message in queue.messages() {
            match (message.visible <= now, message.receive_count) {
                (true, _) => visible += 1,
                (false, 0) => delayed += 1,
                (false, _) => hidden += 1,
            }
        }
        let mut all = queue.settings.clone();
        for (name, value) in [
            ("ApproximateNumberOfMessages", visible.to_string()),
            ("ApproximateNumberOfMessagesNotVisible", hidden.to_string()),
            ("ApproximateNumberOfMessagesDelayed", delayed.to_string()),
            ("MaximumMessageSize", queue.setting("MaximumMessageSize", 1 << 20).to_string()),
            ("VisibilityTimeout", queue.setting("VisibilityTimeout", 30).to_string()),
            ("QueueArn", queue.arn.clone()),
        ] {
            all.insert(name.to_owned(), value);
        }
        let wanted = strings(input, "AttributeNames");
        all.retain(|name, _| wanted.contains(name) || wanted.contains("All"));
        // AWS leaves an empty map out.
        Ok(if all.is_empty() { json!({}) } else { json!({ "Attributes": all }) })
    }

    /// One message, by itself or in a batch.
    fn entry(&self, operation: &str, request: &Value, entry: &Value) -> Result<Value, Refusal> {
        let mut state = self.lock();
        let now = state.now();
        let queue = state.queue(&text(request, "QueueUrl")?)?;
        match operation {
            "SendMessage" => {
                let id = queue.send(new_message(entry), now)?;
                Ok(json!({ "MessageId": id }))
            }
            "DeleteMessage" => queue.delete(&text(entry, "ReceiptHandle")?).map(|()| json!({})),
            _ => {
                let Some(seconds) = entry["VisibilityTimeout"].as_u64() else {
                    return refuse("MissingParameter", "The request must contain the parameter VisibilityTimeout.");
                };
                queue.change_visibility(&text(entry, "ReceiptHandle")?, seconds, now).map(|()| json!({}))
            }
        }
    }

    fn batch(&self, operation: &str, request: &Value, failing: &[usize]) -> Result<Value, Refusal> {
        self.lock().queue(&text(request, "QueueUrl")?)?;
        let entries = request["Entries"].as_array().map(Vec::as_slice).unwrap_or_default();
        if entries.is_empty() {
            return refuse("EmptyBatchRequest", "There should be at least one entry in the request.");
        }
        if entries.len() > 10 {
            return refuse("TooManyEntriesInBatchRequest", "Maximum number of entries per request are 10.");
        }
        let ids: HashSet<_> = entries.iter().map(|entry| entry["Id"].as_str()).collect();
        if ids.len() < entries.len() || ids.contains(&None) {
            return refuse("BatchEntryIdsNotDistinct", "Two or more batch entries have the same Id.");
        }
        let size = |entry: &Value| entry["MessageBody"].as_str().map_or(0, str::len);
        if entries.iter().map(size).sum::<usize>() > 1 << 20 {
            return refuse("BatchRequestTooLong", "Batch requests cannot be longer than 1048576 bytes.");
        }
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for (place, entry) in entries.iter().enumerate() {
            let id = &entry["Id"];
            let answer = match failing.contains(&place) {
                true => Err(("InternalError", "a fault".to_owned(), false)),
                false => self.entry(operation, request, entry).map_err(|refusal| (refusal.code, refusal.message, true)),
            };
            match answer {
                Ok(Value::Object(mut answer)) => {
                    answer.insert("Id".to_owned(), id.clone());
                    successful.push(Value::Object(answer));
                }
                Ok(_) => {}
                Err((code, message, sender)) => {
                    failed.push(json!({ "Id": id, "Code": code, "Message": message, "SenderFault": sender }));
                }
            }
        }
        Ok(json!({ "Successful": successful, "Failed": failed }))
    }

    async fn receive(&self, input: &Value) -> Result<Value, Refusal> {
        let url = text(input, "QueueUrl")?;
        let deadline = Instant::now() + self.wait(&url, input)?;
        loop {
            // From here on no change is missed.
            let changed = self.changed.notified();
            let (messages, next) = self.take(&url, input)?;
            if !messages.is_empty() {
                return Ok(json!({ "Messages": messages }));
            }
            if Instant::now() >= deadline {
                return Ok(json!({}));
            }
            let until = next.map_or(deadline, |next| deadline.min(Instant::now() + next));
            let _ = timeout_at(until, changed).await;
        }
    }

    fn wait(&self, url: &str, input: &Value) -> Result<Duration, Refusal> {
        let mut state = self.lock();
        let longest = state.longest_wait.unwrap_or(Duration::MAX);
        let queue = state.queue(url)?;
        let seconds = input["WaitTimeSeconds"].as_u64();
        let seconds = seconds.unwrap_or_else(|| queue.setting("ReceiveMessageWaitTimeSeconds", 0));
        if seconds > 20 {
            return refuse("InvalidParameterValue", "WaitTimeSeconds must be between 0 and 20, if provided.");
        }
        Ok(Duration::from_secs(seconds).min(longest))
    }

    /// What is visible now; if nothing is, in how long there will be something.
    fn take(&self, url: &str, input: &Value) -> Result<(Vec<Value>, Option<Duration>), Refusal> {
        let mut state = self.lock();
        let now = state.now();
        let queue = state.queue(url)?;
        let max = input["MaxNumberOfMessages"].as_u64().unwrap_or(1);
        if !(1..=10).contains(&max) {
            return refuse("InvalidParameterValue", "MaxNumberOfMessages must be between 1 and 10, if provided.");
        }
        let visibility = input["VisibilityTimeout"].as_u64();
        let visibility = visibility.unwrap_or_else(|| queue.setting("VisibilityTimeout", 30));
        let (taken, moved) = queue.receive(usize::try_from(max).unwrap(), visibility, now);
        let next = queue.next_visible().map(|next| Duration::from_millis(next.saturating_sub(now).max(1)));
        let dead = queue.redrive().map(|(arn, _)| arn);
        if let (Some(dead), false) = (dead, moved.is_empty()) {
            let dead = state.queue(&dead)?;
            moved.into_iter().for_each(|message| dead.put(message));
            self.changed.notify_waiters();
        }
        Ok((taken.iter().map(|(receipt, message)| delivery(receipt, message, input)).collect(), next))
    }
}

/// A message as ReceiveMessage answers it, with the attributes that were asked for.
fn delivery(receipt: &str, message: &Stored, input: &Value) -> Value {
    let mut system = BTreeMap::from([
        ("ApproximateReceiveCount", message.receive_count.to_string()),
        ("SentTimestamp", message.sent.to_string()),
        ("ApproximateFirstReceiveTimestamp", message.first_received.unwrap_or_default().to_string()),
    ]);
    system.extend(message.group.clone().map(|group| ("MessageGroupId", group)));
    system.extend(message.deduplication.clone().map(|id| ("MessageDeduplicationId", id)));
    let wanted = &strings(input, "MessageSystemAttributeNames") | &strings(input, "AttributeNames");
    system.retain(|name, _| wanted.contains(*name) || wanted.contains("All"));
    let mut answer = json!({ "MessageId": message.id, "ReceiptHandle": receipt, "Body": &*message.body });
    if !system.is_empty() {
        answer["Attributes"] = json!(system);
    }
    let wanted = strings(input, "MessageAttributeNames");
    let is_wanted = |name: &str| {
        let matches = |wanted: &String| match wanted.strip_suffix(".*") {
            Some(prefix) => name.starts_with(prefix),
            None => name == wanted || wanted == "All",
        };
        wanted.iter().any(matches)
    };
    let attributes: Map<String, Value> = message
        .attributes
        .iter()
        .filter(|(name, _)| is_wanted(name))
        .map(|(name, it)| (name.clone(), json!({ "DataType": it.kind, "StringValue": it.value })))
        .collect();
    if !attributes.is_empty() {
        answer["MessageAttributes"] = Value::Object(attributes);
    }
    answer
}

fn new_message(entry: &Value) -> NewMessage {
    let attribute = |(name, value): (&String, &Value)| {
        let part = |part: &str| value[part].as_str().unwrap_or_default().to_owned();
        (name.clone(), Attribute { kind: part("DataType"), value: part("StringValue") })
    };
    let text = |name: &str| entry[name].as_str().map(str::to_owned);
    NewMessage {
        body: entry["MessageBody"].as_str().unwrap_or_default().into(),
        attributes: entry["MessageAttributes"].as_object().into_iter().flatten().map(attribute).collect(),
        delay: entry["DelaySeconds"].as_u64(),
        group: text("MessageGroupId"),
        deduplication: text("MessageDeduplicationId"),
    }
}

fn text(input: &Value, name: &str) -> Result<String, Refusal> {
    match input[name].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => refuse("MissingParameter", format!("The request must contain the parameter {name}.")),
    }
}

fn strings(input: &Value, name: &str) -> BTreeSet<String> {
    input[name].as_array().into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

fn settings(input: &Value) -> BTreeMap<String, String> {
    let setting = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    input["Attributes"].as_object().into_iter().flatten().filter_map(setting).collect()
}

/// As AWS answers the JSON protocol, with the code that the older query protocol has in a header.
fn error(status: u16, code: &str, message: &str) -> Answer {
    let query = match code {
        "QueueDoesNotExist" => "AWS.SimpleQueueService.NonExistentQueue".to_owned(),
        "MessageNotInflight"
        | "EmptyBatchRequest"
        | "TooManyEntriesInBatchRequest"
        | "BatchEntryIdsNotDistinct"
        | "BatchRequestTooLong" => format!("AWS.SimpleQueueService.{code}"),
        other => other.to_owned(),
    };
    let fault = if status < 500 { "Sender" } else { "Receiver" };
    let body = json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": message });
    Answer::new(status, body.to_string())
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amzn-query-error", format!("{query};{fault}"))
}
