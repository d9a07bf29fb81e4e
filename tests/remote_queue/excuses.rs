//! Deliveries that were no attempts, in a queue that counts every one of them.

use std::time::Duration;

use gristmill::queue::{Message, Queue};

use crate::{Rig, support::cloud::Fault};

async fn receive(rig: &Rig) -> Message {
    loop {
        if let Some(message) = rig.queue.receive(1).await.unwrap().pop() {
            return message;
        }
    }
}

#[tokio::test]
async fn an_outage_does_not_use_up_what_the_redrive_policy_allows() {
    let rig = Rig::new().await;
    rig.cloud.sqs().send("uploads", "event");
    let mut counts = Vec::new();
    for _ in 0..12 {
        let message = receive(&rig).await;
        counts.push((message.receive_count, rig.queue.excuse(&message, Duration::ZERO).await.unwrap()));
    }
    let round = [(1, false), (2, false), (3, false), (4, false), (5, true)];
    assert_eq!(counts, [&round[..], &round, &round[..2]].concat());
    assert_eq!((rig.count("uploads"), rig.count("dead")), (1, 0));
    assert_eq!(receive(&rig).await.body, "event");
}

#[tokio::test]
async fn a_message_that_starts_anew_waits_as_long_as_it_should() {
    let rig = Rig::with(|cloud| cloud.sqs().redrive("uploads", "dead", 1)).await;
    let message = rig.one_in_flight().await;
    assert!(rig.queue.excuse(&message, Duration::from_mins(2)).await.unwrap());
    rig.cloud.sqs().advance(Duration::from_secs(119));
    assert!(rig.queue.receive(1).await.unwrap().is_empty());
    rig.cloud.sqs().advance(Duration::from_secs(1));
    assert_eq!(receive(&rig).await.receive_count, 1);
}

#[tokio::test]
async fn without_leave_to_send_it_is_released_all_the_same() {
    let rig = Rig::with(|cloud| cloud.sqs().redrive("uploads", "dead", 1)).await;
    let message = rig.one_in_flight().await;
    rig.cloud.faults(|call| match call.operation.as_str() {
        "SendMessage" => Fault::Error { status: 403, code: "AccessDenied" },
        _ => Fault::None,
    });
    assert!(!rig.queue.excuse(&message, Duration::ZERO).await.unwrap());
    assert_eq!((rig.count("uploads"), rig.count("dead")), (1, 0));
    // What the queue makes of it then is its own business, and nothing is lost by it.
    assert!(rig.queue.receive(1).await.unwrap().is_empty());
    assert_eq!((rig.count("uploads"), rig.count("dead")), (0, 1));
}
