//! What becomes of messages.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use gristmill::queue::Queue as _;

use super::rig::{Rig, VISIBILITY, end};
use crate::support::{
    faults::{Fault, When},
    toys,
};

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_kept_as_it_is() {
    let mut rig = Rig::start(2, |_, _, _| Fault::None);
    rig.queue.send("", "", &b"{\"Records\": 7, \xff}"[..]);
    assert_eq!(rig.next().await.1, "dead: malformed");
    let dead = rig.queue.dead();
    assert_eq!(&dead[0].body[..], b"{\"Records\": 7, \xff}");
    assert_eq!((&*dead[0].letter.class, &dead[0].letter.key, dead[0].letter.attempts), ("malformed", &None, 1));
    assert!(!dead[0].letter.reason.is_empty());
    assert!(rig.queue.live().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_about_an_object_of_ours_is_acknowledged() {
    let mut rig = Rig::start(2, |_, _, _| Fault::None);
    rig.queue.send("", "", &br#"{"Event":"s3:TestEvent"}"#[..]);
    rig.queue.send("", "", toys::message([("elsewhere/a.copy", "1"), ("processed/a.copy", "1")]));
    assert_eq!(rig.ends(2).await, [end("elsewhere/a.copy", "ignored"), end("processed/a.copy", "ignored")]);
    rig.called("acknowledge", 2).await;
    assert!(rig.queue.live().is_empty() && rig.queue.dead().is_empty());
}

/// Uploads objects that one message is about.
fn together(rig: &Rig, keys: &[&str]) {
    let etags: Vec<String> = keys.iter().map(|key| rig.store.put(key, "some content")).collect();
    rig.queue.send("", "", toys::message(keys.iter().copied().zip(etags.iter().map(String::as_str))));
}

#[tokio::test(start_paused = true)]
async fn one_bad_object_does_not_undo_the_others() {
    let mut rig = Rig::start(2, |_, _, _| Fault::None);
    together(&rig, &["uploads/a.copy", "uploads/b.reject", "uploads/c.split"]);
    assert_eq!(
        rig.ends(3).await,
        [
            end("uploads/a.copy", "processed"),
            end("uploads/b.reject", "dead: reject"),
            end("uploads/c.split", "processed")
        ]
    );
    let keys: Vec<String> = rig.store.objects().into_keys().collect();
    let expected = [
        "processed/a.copy",
        "processed/a.copy.copy",
        "processed/c.split",
        "processed/c.split.head",
        "processed/c.split.tail",
        "uploads/b.reject",
    ];
    assert_eq!(keys, expected);
    assert_eq!(rig.queue.dead()[0].letter.key.as_deref(), Some("uploads/b.reject"));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_tells_of_all_that_failed() {
    let mut rig = Rig::start(2, |_, _, _| Fault::None);
    rig.store.put("processed/b.split.head", "mine");
    together(&rig, &["uploads/a.reject", "uploads/b.split"]);
    assert_eq!(rig.ends(2).await, [end("uploads/a.reject", "dead: reject"), end("uploads/b.split", "dead: conflict")]);
    let letter = &rig.queue.dead()[0].letter;
    assert_eq!((&*letter.class, letter.key.as_deref()), ("reject", Some("uploads/a.reject")));
    assert!(letter.reason.contains("; `uploads/b.split`: `processed/b.split.head` was not put there"), "{letter:?}");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_can_still_work_keeps_its_message() {
    let mut rig = Rig::start(2, |_, _, _| Fault::None);
    together(&rig, &["uploads/a.flaky", "uploads/b.reject"]);
    assert_eq!(
        rig.ends(2).await,
        [end("uploads/a.flaky", "retried: retry"), end("uploads/b.reject", "retried: reject")]
    );
    assert_eq!(rig.ends(2).await, [end("uploads/a.flaky", "processed"), end("uploads/b.reject", "dead: reject")]);
    let dead = rig.queue.dead();
    assert_eq!((&*dead[0].letter.class, dead[0].letter.key.as_deref()), ("reject", Some("uploads/b.reject")));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_brings_the_host_down_each_time_is_stopped() {
    let mut rig = Rig::start(2, |_, _, _| Fault::None);
    let etag = rig.store.put("uploads/b.copy", "x");
    rig.queue.send_received("uploads/b.copy", &etag, toys::message([("uploads/b.copy", &*etag)]), 3);
    assert_eq!(rig.next().await, end("uploads/b.copy", "dead: crashed"));
    assert!(rig.store.objects().contains_key("uploads/b.copy"));
    let letter = &rig.queue.dead()[0].letter;
    assert_eq!((letter.attempts, letter.key.as_deref()), (4, Some("uploads/b.copy")));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_was_done_before_the_host_was_stopped_is_done() {
    let mut rig = Rig::start(2, |_, _, _| Fault::None);
    let etag = rig.upload("uploads/a.copy");
    assert_eq!(rig.next().await, end("uploads/a.copy", "processed"));
    rig.queue.send_received("uploads/a.copy", &etag, toys::message([("uploads/a.copy", &*etag)]), 7);
    assert_eq!(rig.next().await, end("uploads/a.copy", "alreadydone"));
    assert!(rig.queue.dead().is_empty());
}

#[tokio::test(start_paused = true)]
async fn settling_outlasts_a_short_outage_of_the_queue() {
    let failures = AtomicUsize::new(3);
    let down = move |call: &str, when: When, _: &str| {
        let fails = call == "acknowledge"
            && when == When::Before
            && failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        match (fails, call) {
            (true, _) => Fault::Error,
            _ => Fault::None,
        }
    };
    let mut rig = Rig::start(2, down);
    rig.upload("uploads/a.copy");
    assert_eq!(rig.next().await, end("uploads/a.copy", "processed"));
    assert!(rig.queue.live().is_empty());
    assert_eq!(rig.times("open").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_hangs_is_tried_again() {
    let first = AtomicBool::new(true);
    let hangs = move |call: &str, when: When, _: &str| {
        let hangs = call == "acknowledge" && when == When::Before && first.swap(false, Ordering::Relaxed);
        if hangs { Fault::Hang } else { Fault::None }
    };
    let mut rig = Rig::start(1, hangs);
    rig.upload("uploads/a.copy");
    assert_eq!(rig.next().await, end("uploads/a.copy", "processed"));
    assert!(rig.queue.live().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_stops_a_job_before_its_commit() {
    // The guest waits for its bytes while somebody else gets the message.
    let slow = |call: &str, _: When, _: &str| match call {
        "read" => Fault::Delay(Duration::from_secs(40)),
        _ => Fault::None,
    };
    let mut rig = Rig::start(1, slow);
    rig.upload("uploads/a.copy");
    rig.called("read", 1).await;
    rig.queue.redeliver();
    let other = rig.queue.receive(1).await.unwrap();
    assert_eq!(other.len(), 1);
    assert_eq!(rig.next().await, end("uploads/a.copy", "released"));
    assert!(rig.elapsed() <= VISIBILITY);
    assert_eq!((rig.times("verify").len(), rig.times("publish").len()), (0, 0));
    assert_eq!(rig.store.objects().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_does_not_stop_a_commit() {
    let slow = |call: &str, when: When, _: &str| match (call, when) {
        ("publish", When::Before) => Fault::Delay(Duration::from_secs(40)),
        _ => Fault::None,
    };
    let mut rig = Rig::start(1, slow);
    rig.upload("uploads/a.split");
    rig.called("publish", 1).await;
    rig.queue.redeliver();
    rig.queue.receive(1).await.unwrap();
    assert_eq!(rig.next().await, end("uploads/a.split", "processed"));
    let keys: Vec<String> = rig.store.objects().into_keys().collect();
    assert_eq!(keys, ["processed/a.split", "processed/a.split.head", "processed/a.split.tail"]);
    // Its acknowledgement was stale, so the message comes once more.
    assert_eq!(rig.next().await, end("uploads/a.split", "alreadydone"));
    assert!(rig.queue.live().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_content_that_is_no_longer_there_becomes_visible() {
    let slow = |call: &str, _: When, _: &str| match call {
        "write" => Fault::Delay(Duration::from_secs(10)),
        _ => Fault::None,
    };
    for overwritten in [true, false] {
        let mut rig = Rig::start(2, slow);
        rig.upload("uploads/a.split");
        // The last call of the guest: it will not notice.
        rig.called("write", 2).await;
        if overwritten {
            rig.store.put("uploads/a.split", "newer content");
        } else {
            rig.store.remove("uploads/a.split");
        }
        assert_eq!(rig.next().await, end("uploads/a.split", "superseded"));
        assert!(rig.times("publish").is_empty() && rig.queue.live().is_empty());
        assert_eq!(rig.store.objects().len(), usize::from(overwritten));
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_upload_does_not_overwrite_the_results_of_a_newer_one() {
    // The first output of the first upload is on its way for so long that the second upload overtakes it.
    let first = AtomicBool::new(true);
    let slow = move |call: &str, when: When, _: &str| {
        let slow = call == "publish" && when == When::Before && first.swap(false, Ordering::Relaxed);
        if slow { Fault::Delay(Duration::from_secs(20)) } else { Fault::None }
    };
    let mut rig = Rig::start(2, slow);
    rig.upload("uploads/a.copy");
    rig.called("publish", 1).await;
    let etag = rig.store.put("uploads/a.copy", "newer content");
    rig.queue.send("uploads/a.copy", &etag, toys::message([("uploads/a.copy", &*etag)]));
    assert_eq!(rig.next().await, end("uploads/a.copy", "processed"));
    assert_eq!(rig.next().await, end("uploads/a.copy", "superseded"));
    assert_eq!(&rig.store.objects()["processed/a.copy.copy"].body[..], b"newer content");
}
