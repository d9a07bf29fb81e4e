//! The walk through the dead letters.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use gristmill::queue::{DeadLetters, DeadMessage, MOVED_BY_QUEUE, Queue, sqs::SqsDeadLetters};

use crate::{Rig, VISIBILITY, letter, support::cloud::Fault};

/// A walk to its end. The messages that it met; what happens to each is up to the caller.
async fn walk(
    walk: &mut SqsDeadLetters,
    mut settle: impl AsyncFnMut(&mut SqsDeadLetters, &DeadMessage),
) -> Vec<DeadMessage> {
    let mut all = Vec::new();
    loop {
        let messages = walk.next().await.unwrap();
        if messages.is_empty() {
            return all;
        }
        for message in messages {
            settle(walk, &message).await;
            all.push(message);
        }
    }
}

async fn keep(walk: &mut SqsDeadLetters, message: &DeadMessage) {
    walk.keep(message).await.unwrap();
}

impl Rig {
    async fn dead(&self, count: usize) {
        for message in self.in_flight(count).await {
            self.queue.dead_letter(&message, &letter()).await.unwrap();
        }
        assert_eq!(self.count("dead"), count);
    }
}

#[tokio::test]
async fn a_list_shows_each_once_and_leaves_them() {
    let rig = Rig::new().await;
    rig.dead(25).await;
    for _ in 0..2 {
        let all = walk(&mut rig.queue.dead_letters().unwrap(), keep).await;
        let ids: BTreeSet<_> = all.iter().map(|message| &message.id).collect();
        let bodies: BTreeSet<_> = all.iter().map(|message| &message.body).collect();
        assert_eq!((all.len(), ids.len(), bodies.len()), (25, 25, 25));
        assert!(all.iter().all(|message| message.letter == letter()));
        let age = SystemTime::now().duration_since(all[0].died).unwrap();
        assert!(age < Duration::from_secs(60), "{age:?}");
        let dead = rig.cloud.sqs().messages("dead");
        assert!(dead.iter().all(|message| message.visible_in.is_zero()), "{dead:?}");
    }
}

#[tokio::test]
async fn others_do_not_see_what_a_walk_holds_until_its_end() {
    let rig = Rig::new().await;
    rig.dead(3).await;
    let mut first = rig.queue.dead_letters().unwrap();
    assert_eq!(first.next().await.unwrap().len(), 3);
    assert_eq!(walk(&mut rig.queue.dead_letters().unwrap(), keep).await.len(), 0);
    first.end().await.unwrap();
    assert_eq!(first.next().await.unwrap(), []);
    assert_eq!(walk(&mut rig.queue.dead_letters().unwrap(), keep).await.len(), 3);
}

#[tokio::test]
async fn a_walk_that_is_broken_off_gives_back_in_time() {
    let rig = Rig::new().await;
    rig.dead(3).await;
    rig.queue.dead_letters().unwrap().next().await.unwrap();
    rig.cloud.sqs().advance(Duration::from_mins(5));
    assert_eq!(walk(&mut rig.queue.dead_letters().unwrap(), keep).await.len(), 3);
}

#[tokio::test]
async fn what_comes_back_in_a_long_walk_is_not_shown_twice() {
    let rig = Rig::new().await;
    rig.dead(3).await;
    let mut long = rig.queue.dead_letters().unwrap();
    let first = long.next().await.unwrap();
    rig.cloud.sqs().advance(Duration::from_mins(5));
    assert_eq!(long.next().await.unwrap(), []);
    // The walk gave back what it held with its newest receipts.
    assert!(rig.cloud.sqs().messages("dead").iter().all(|message| message.visible_in.is_zero()));
    assert_eq!(first.len(), 3);
}

#[tokio::test]
async fn redriven_they_start_anew() {
    let rig = Rig::new().await;
    rig.dead(12).await;
    let all = walk(&mut rig.queue.dead_letters().unwrap(), async |walk, message| {
        walk.redrive(message).await.unwrap();
    })
    .await;
    assert_eq!((all.len(), rig.count("dead"), rig.count("uploads")), (12, 0, 12));
    assert!(rig.cloud.sqs().messages("uploads").iter().all(|message| message.attributes.is_empty()));
    let message = rig.queue.receive(1).await.unwrap().remove(0);
    assert_eq!((message.receive_count, &*message.body), (1, &b"event 0"[..]));
}

#[tokio::test]
async fn a_redrive_that_is_cut_short_leaves_it_on_both() {
    let rig = Rig::new().await;
    rig.dead(1).await;
    let mut walk = rig.queue.dead_letters().unwrap();
    let message = walk.next().await.unwrap().remove(0);
    for (operation, left) in [("SendMessage", (1, 0)), ("DeleteMessageBatch", (1, 1))] {
        rig.cloud.faults(move |call| match call.operation == operation {
            true => Fault::Error { status: 400, code: "AccessDenied" },
            false => Fault::None,
        });
        walk.redrive(&message).await.unwrap_err();
        assert_eq!((rig.count("dead"), rig.count("uploads")), left, "{operation}");
    }
}

#[tokio::test]
async fn purged_they_are_gone() {
    let rig = Rig::new().await;
    rig.dead(12).await;
    let all = walk(&mut rig.queue.dead_letters().unwrap(), async |walk, message| {
        // Every other.
        match message.body.ends_with(b"0") {
            true => walk.keep(message).await.unwrap(),
            false => walk.purge(message).await.unwrap(),
        }
    })
    .await;
    assert_eq!((all.len(), rig.count("uploads")), (12, 0));
    let left: Vec<_> = rig.cloud.sqs().messages("dead").iter().map(|message| message.body.to_string()).collect();
    assert_eq!(left, ["event 0", "event 10"]);
}

#[tokio::test]
async fn what_the_queue_itself_has_moved_says_so() {
    let rig = Rig::new().await;
    rig.cloud.sqs().send("uploads", "poison");
    for _ in 0..5 {
        assert_eq!(rig.queue.receive(1).await.unwrap().len(), 1);
        rig.cloud.sqs().advance(VISIBILITY);
    }
    assert!(rig.queue.receive(1).await.unwrap().is_empty());
    let all = walk(&mut rig.queue.dead_letters().unwrap(), keep).await;
    let [DeadMessage { letter, body, died, .. }] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&*letter.class, letter.attempts, &**body), (MOVED_BY_QUEUE, 5, &b"poison"[..]));
    assert!(letter.reason.contains("redrive policy"), "{}", letter.reason);
    assert!(SystemTime::now().duration_since(*died).unwrap() < Duration::from_secs(60));
}
