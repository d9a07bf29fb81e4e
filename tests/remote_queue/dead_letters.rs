//! What is recorded with a message that died.

use std::{collections::BTreeMap, time::SystemTime};

use bytes::Bytes;
use gristmill::queue::{DeadLetter, DeadLetters, Message, Queue, QueueError};

use crate::{
    Rig, VISIBILITY, letter,
    support::cloud::{Fault, sqs::Shown},
};

/// Of a message: its attributes without their types.
fn values(message: &Shown) -> BTreeMap<&str, &str> {
    message.attributes.iter().map(|(name, attribute)| (name.as_str(), attribute.value.as_str())).collect()
}

#[tokio::test]
async fn attributes_say_why() {
    let rig = Rig::new().await;
    let message = rig.one_in_flight().await;
    let before = SystemTime::now();
    rig.queue.dead_letter(&message, &letter()).await.unwrap();
    let dead = rig.cloud.sqs().messages("dead").remove(0);
    let mut values = values(&dead);
    let time = humantime::parse_rfc3339(values.remove("gristmill-time").unwrap()).unwrap();
    let age = time.duration_since(before).unwrap_or_else(|early| early.duration());
    assert!(age.as_secs() < 60, "{time:?}");
    let expected = BTreeMap::from([
        ("gristmill-attempts", "2"),
        ("gristmill-backtrace", "here\nthere"),
        ("gristmill-class", "reject"),
        ("gristmill-digest", "0123"),
        ("gristmill-key", "uploads/a.csv"),
        ("gristmill-plugin", "parse"),
        ("gristmill-reason", "line 3 is broken"),
    ]);
    assert_eq!((values, &*dead.body), (expected, "event 0"));
    assert_eq!(dead.attributes["gristmill-attempts"].kind, "Number");
}

#[tokio::test]
async fn whatever_a_guest_writes_is_taken() {
    let rig = Rig::new().await;
    let letters = [
        DeadLetter { reason: "\0\u{1b}[31m\u{ffff}".to_owned(), backtrace: Some("\u{1}".repeat(1 << 20)), ..letter() },
        DeadLetter { reason: "猫".repeat(1 << 18), key: Some("k".repeat(1_024)), ..letter() },
        DeadLetter { reason: String::new(), key: Some(String::new()), plugin: None, backtrace: None, ..letter() },
    ];
    for letter in &letters {
        let message = rig.one_in_flight().await;
        rig.queue.dead_letter(&message, letter).await.unwrap();
    }
    let dead = rig.cloud.sqs().messages("dead");
    assert_eq!(values(&dead[0])["gristmill-reason"], "\u{fffd}\u{fffd}[31m\u{fffd}");
    assert!(values(&dead[1])["gristmill-reason"].ends_with("猫…"));
    let names: Vec<_> = dead[2].attributes.keys().map(String::as_str).collect();
    assert_eq!(names, ["gristmill-attempts", "gristmill-class", "gristmill-time"]);
}

#[tokio::test]
async fn a_large_body_leaves_less_room_and_stays_as_it_is() {
    let rig = Rig::with(|cloud| cloud.sqs().set("dead", "MaximumMessageSize", "262144")).await;
    let long = DeadLetter { reason: "x".repeat(5_000), backtrace: Some("y".repeat(5_000)), ..letter() };
    for (spare, expected) in [(20_000, 8), (3_000, 7), (100, 3), (0, 0)] {
        let body = "b".repeat((256 << 10) - spare);
        rig.cloud.sqs().send("uploads", body.as_str());
        let message = rig.queue.receive(1).await.unwrap().remove(0);
        rig.queue.dead_letter(&message, &long).await.unwrap();
        let dead = rig.cloud.sqs().messages("dead").pop().unwrap();
        assert_eq!((dead.attributes.len(), &*dead.body == body.as_str()), (expected, true), "{spare} bytes spare");
    }
}

#[tokio::test]
async fn a_body_that_is_empty_is_not_lost() {
    let rig = Rig::new().await;
    let message = Message { body: Bytes::new(), ..rig.one_in_flight().await };
    rig.queue.dead_letter(&message, &letter()).await.unwrap();
    assert_eq!(&*rig.cloud.sqs().messages("dead")[0].body, "(no body)");
}

#[tokio::test]
async fn what_is_no_longer_ours_is_not_given_up() {
    let rig = Rig::new().await;
    let message = rig.one_in_flight().await;
    rig.cloud.sqs().advance(VISIBILITY);
    let gone = rig.queue.dead_letter(&message, &letter()).await;
    assert!(matches!(gone, Err(QueueError::Stale)), "{gone:?}");
    assert_eq!((rig.count("uploads"), rig.count("dead")), (1, 0));
}

#[tokio::test]
async fn a_message_is_never_on_neither_queue() {
    for operation in ["SendMessage", "DeleteMessageBatch"] {
        let rig = Rig::new().await;
        let message = rig.one_in_flight().await;
        rig.cloud.faults(move |call| match call.operation == operation {
            true => Fault::Error { status: 400, code: "AccessDenied" },
            false => Fault::None,
        });
        let failed = rig.queue.dead_letter(&message, &letter()).await.unwrap_err().to_string();
        assert!(failed.contains(&format!("allow `sqs:{}`", operation.trim_end_matches("Batch"))), "{failed}");
        let sent = usize::from(operation != "SendMessage");
        assert_eq!((rig.count("uploads"), rig.count("dead")), (1, sent), "{operation}");
    }
}

#[tokio::test]
async fn fifo_queues_keep_the_group_and_take_no_letter_twice() {
    let cloud = crate::Cloud::start();
    let url = cloud.sqs().create_queue("uploads.fifo");
    let dead = cloud.sqs().create_queue("dead.fifo");
    let client = cloud.sqs().client();
    cloud.sqs().longest_wait(std::time::Duration::from_millis(100));
    let sent = client.send_message().queue_url(&url).message_body("event").message_group_id("a/b!");
    sent.message_deduplication_id("1").send().await.unwrap();
    let queue = crate::SqsQueue::connect(client, &url, Some(&dead), VISIBILITY).await.unwrap();
    let message = queue.receive(1).await.unwrap().remove(0);
    cloud.faults(|call| match call.operation.as_str() {
        "DeleteMessageBatch" => Fault::Error { status: 400, code: "AccessDenied" },
        _ => Fault::None,
    });
    queue.dead_letter(&message, &letter()).await.unwrap_err();
    cloud.faults(|_| Fault::None);
    queue.dead_letter(&message, &letter()).await.unwrap();
    let letters = cloud.sqs().messages("dead.fifo");
    assert_eq!((letters.len(), letters[0].group.as_deref()), (1, Some("a/b!")));

    let mut walk = queue.dead_letters().unwrap();
    let dead = walk.next().await.unwrap().remove(0);
    walk.redrive(&dead).await.unwrap();
    let back = cloud.sqs().messages("uploads.fifo");
    assert_eq!((back.len(), back[0].group.as_deref(), cloud.sqs().count("dead.fifo")), (1, Some("a/b!"), 0));
    queue.send(&["another".to_owned()]).await.remove(0).unwrap();
    assert_eq!(cloud.sqs().count("uploads.fifo"), 2);
}
