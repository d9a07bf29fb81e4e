//! Ten to a request, and each with an answer of its own.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::Duration,
};

use gristmill::queue::{Queue, QueueError, Receipt};
use tokio::task::JoinSet;

use crate::{Rig, VISIBILITY, eventually, support::cloud::Fault, text};

#[tokio::test]
async fn acknowledgements_share_requests() {
    let rig = Rig::new().await;
    let messages = rig.in_flight(25).await;
    for answer in rig.acknowledge(&messages).await {
        answer.unwrap();
    }
    assert_eq!((rig.count("uploads"), rig.requests("DeleteMessageBatch")), (0, 3));
}

#[tokio::test]
async fn renewals_share_requests_and_are_rounded_up() {
    let rig = Rig::new().await;
    let mut tasks = JoinSet::new();
    for message in rig.in_flight(12).await {
        let queue = Arc::clone(&rig.queue);
        tasks.spawn(async move { queue.set_visibility(&message.receipt, Duration::from_millis(60_001)).await });
    }
    for answer in tasks.join_all().await {
        answer.unwrap();
    }
    assert_eq!(rig.requests("ChangeMessageVisibilityBatch"), 2);
    for message in rig.cloud.sqs().messages("uploads") {
        let seconds = message.visible_in.as_secs_f64();
        assert!(seconds > 50.0 && seconds <= 61.0, "{seconds}");
    }
    rig.cloud.sqs().advance(Duration::from_millis(60_000));
    assert!(rig.queue.receive(10).await.unwrap().is_empty(), "they came back early");
}

#[tokio::test]
async fn what_is_less_than_a_second_is_a_second() {
    let rig = Rig::new().await;
    let message = rig.one_in_flight().await;
    rig.queue.set_visibility(&message.receipt, Duration::from_millis(1)).await.unwrap();
    let visible_in = rig.cloud.sqs().messages("uploads")[0].visible_in;
    assert!(visible_in > Duration::from_millis(1) && visible_in <= Duration::from_secs(1), "{visible_in:?}");
}

#[tokio::test]
async fn the_longest_back_off_is_within_what_sqs_allows() {
    let rig = Rig::new().await;
    let message = rig.one_in_flight().await;
    rig.queue.set_visibility(&message.receipt, Duration::from_hours(12)).await.unwrap();
    assert!(rig.cloud.sqs().messages("uploads")[0].visible_in > Duration::from_hours(11));
}

#[tokio::test]
async fn beyond_the_limit_of_a_delivery_the_message_cannot_be_held() {
    let rig = Rig::new().await;
    let message = rig.one_in_flight().await;
    rig.queue.set_visibility(&message.receipt, Duration::from_hours(11)).await.unwrap();
    // Only SQS's clock goes on, so that the host does not cut by itself.
    rig.cloud.sqs().advance(Duration::from_hours(10));
    let answer = rig.queue.set_visibility(&message.receipt, Duration::from_hours(3)).await;
    assert!(matches!(answer, Err(QueueError::Stale)), "{answer:?}");
}

#[tokio::test]
async fn an_entry_that_fails_fails_alone() {
    let rig = Rig::new().await;
    let messages = rig.in_flight(5).await;
    rig.cloud.faults(|call| match call.operation.as_str() {
        "DeleteMessageBatch" => Fault::FailEntries(vec![1, 3]),
        _ => Fault::None,
    });
    let mut failed = Vec::new();
    for (message, answer) in messages.iter().zip(rig.acknowledge(&messages).await) {
        if let Err(error) = answer {
            assert!(
                error.to_string().contains("failed inside SQS for one message of a batch: InternalError"),
                "{error}"
            );
            failed.push(message.clone());
        }
    }
    let left: Vec<_> = rig.cloud.sqs().messages("uploads").into_iter().map(|message| message.id).collect();
    assert_eq!(failed.iter().map(|message| message.id.clone()).collect::<Vec<_>>(), left);
    assert_eq!(failed.len(), 2);

    rig.cloud.faults(|_| Fault::None);
    for answer in rig.acknowledge(&failed).await {
        answer.unwrap();
    }
    assert_eq!(rig.count("uploads"), 0);
}

#[tokio::test]
async fn a_stale_receipt_disturbs_no_other() {
    let rig = Rig::new().await;
    let mut messages = rig.in_flight(2).await;
    rig.cloud.sqs().advance(VISIBILITY);
    let again = rig.queue.receive(1).await.unwrap();
    messages
        .insert(0, crate::Message { receipt: Receipt(format!("{}x", messages[0].receipt.0)), ..messages[0].clone() });
    let answers = rig.acknowledge(&messages).await;
    assert_eq!(again[0].id, messages[1].id);
    assert!(matches!(&answers[..], [Err(QueueError::Stale), Err(QueueError::Stale), Ok(())]), "{answers:?}");
    assert_eq!((rig.count("uploads"), rig.requests("DeleteMessageBatch")), (1, 1));
}

#[tokio::test]
async fn a_batch_that_fails_fails_for_all() {
    let rig = Rig::new().await;
    let messages = rig.in_flight(3).await;
    rig.cloud.faults(|call| match call.operation.as_str() {
        "DeleteMessageBatch" => Fault::Error { status: 503, code: "ServiceUnavailable" },
        _ => Fault::None,
    });
    for answer in rig.acknowledge(&messages).await {
        let text = text(answer);
        assert!(text.contains("sqs:DeleteMessage") && text.contains("ServiceUnavailable: a fault"), "{text}");
    }
    assert_eq!((rig.count("uploads"), rig.requests("DeleteMessageBatch")), (3, 3), "the SDK tries three times");
}

#[tokio::test]
async fn a_passing_fault_is_not_noticed() {
    let rig = Rig::new().await;
    let messages = rig.in_flight(3).await;
    let faults = AtomicU32::new(0);
    rig.cloud.faults(move |call| match call.operation.as_str() {
        "DeleteMessageBatch" => match faults.fetch_add(1, Ordering::SeqCst) {
            0 => Fault::Error { status: 503, code: "ServiceUnavailable" },
            // What was deleted by a request whose answer is lost is deleted again.
            1 => Fault::LostAnswer,
            _ => Fault::None,
        },
        _ => Fault::None,
    });
    for answer in rig.acknowledge(&messages).await {
        answer.unwrap();
    }
    assert_eq!(rig.count("uploads"), 0);
}

#[tokio::test]
async fn what_was_handed_in_is_carried_out() {
    let rig = Rig::new().await;
    let messages = rig.in_flight(3).await;
    for message in &messages {
        // Polled once and given up, as by somebody who is cancelled.
        let mut call = pin!(rig.queue.acknowledge(&message.receipt));
        assert!(poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_pending())).await);
    }
    let Rig { cloud, queue } = rig;
    drop(queue);
    eventually("the messages are still there", || cloud.sqs().count("uploads") == 0).await;
}

#[tokio::test]
async fn orders_for_one_message_are_carried_out_in_order() {
    let rig = Rig::new().await;
    let message = rig.one_in_flight().await;
    rig.cloud.latency(Duration::from_millis(20));
    let mut tasks = JoinSet::new();
    for seconds in (1..=12).rev() {
        let (queue, receipt) = (Arc::clone(&rig.queue), message.receipt.clone());
        tasks.spawn(async move { queue.set_visibility(&receipt, Duration::from_secs(1_000 * seconds)).await });
    }
    for answer in tasks.join_all().await {
        answer.unwrap();
    }
    let visible_in = rig.cloud.sqs().messages("uploads")[0].visible_in;
    assert!(visible_in <= Duration::from_secs(1_000), "the last order was {visible_in:?}");
    assert_eq!(rig.requests("ChangeMessageVisibilityBatch"), 12);
}

#[tokio::test]
async fn events_of_the_hosts_own_are_sent_and_answered_one_by_one() {
    let rig = Rig::new().await;
    let bodies: Vec<String> = (0..25).map(|n| format!("event {n}")).collect();
    let faults = AtomicU32::new(0);
    rig.cloud.faults(move |call| match call.operation.as_str() {
        "SendMessageBatch" if faults.fetch_add(1, Ordering::SeqCst) == 1 => Fault::FailEntries(vec![2]),
        _ => Fault::None,
    });
    let answers = rig.queue.send(&bodies).await;
    let failed: Vec<_> = (0..25).filter(|place| answers[*place].is_err()).collect();
    assert_eq!((failed, answers.len(), rig.requests("SendMessageBatch")), (vec![12], 25, 3));
    let sent: Vec<_> = rig.cloud.sqs().messages("uploads").iter().map(|message| message.body.to_string()).collect();
    let expected: Vec<_> = (0..25).filter(|n| *n != 12).map(|n| format!("event {n}")).collect();
    assert_eq!(sent, expected);
    assert_eq!(rig.queue.send(&[]).await.len(), 0);
}
