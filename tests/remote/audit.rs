//! What would be the use of an auditor that finds nothing? Each test damages a sound bucket, made by hand.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Uploads, on_ministack,
    support::{
        auditor::Object,
        remote_auditor::RemoteAuditor,
        remote_bucket::{Attributes, Events, Remote, message, record},
    },
};

const VERSION: &str = "0123456789abcdef";

/// The entity tag of `content`, in a bucket without encryption.
const ETAG: &str = "9a0364b9e99bb480dd25e1f0284c8555";

/// `done ü` was copied, `dead` is dead, `live` waits.
struct Sound<'a> {
    remote: &'a Remote,
    uploads: Uploads<'a>,
}

impl<'a> Sound<'a> {
    fn new(remote: &'a Remote) -> Self {
        let mut uploads = Uploads::to(remote);
        uploads.add_with(b"content", Object::copied("uploads/done ü", b"content"), owned());
        uploads.add(b"rejected", Object::dead("uploads/dead", b"rejected", "reject"));
        uploads.add(b"waits", Object::waiting("uploads/live", b"waits"));
        remote.delete("uploads/done ü");
        remote.put_with("processed/done ü", b"content", &made(owned()));
        remote.put_with("processed/done ü.copy", b"content", &made(Attributes::default()));
        remote.bury(&about(remote, "uploads/dead"), &letter("reject"));
        remote.send(&[about(remote, "uploads/live")]);
        Self { remote, uploads }
    }

    fn problems(&self) -> Vec<String> {
        let versions = BTreeMap::from([("copy".to_owned(), BTreeSet::from([VERSION.to_owned()]))]);
        let mut auditor = RemoteAuditor::new(self.remote, &self.uploads.list, versions);
        auditor.foreign.insert("processed/foreign".to_owned(), b"somebody's".to_vec());
        auditor.problems()
    }
}

fn owned() -> Attributes {
    let mut attributes = Attributes::default();
    attributes.metadata.insert("owner".to_owned(), "somebody".to_owned());
    attributes
}

/// With the provenance of `done ü`.
fn made(mut attributes: Attributes) -> Attributes {
    let plugin = format!("copy@{VERSION}");
    for (name, value) in [("source", "uploads/done%20%C3%BC"), ("source-etag", ETAG), ("plugins", &plugin)] {
        attributes.metadata.insert(format!("gristmill-{name}"), value.to_owned());
    }
    attributes
}

fn without(name: &str) -> Attributes {
    let mut attributes = made(owned());
    assert!(attributes.metadata.remove(name).is_some());
    attributes
}

fn with(name: &str, value: &str) -> Attributes {
    let mut attributes = made(owned());
    attributes.metadata.insert(name.to_owned(), value.to_owned());
    attributes
}

fn about(remote: &Remote, key: &str) -> String {
    message(&[record("ObjectCreated:Put", &remote.bucket, key, "0")])
}

fn letter(class: &str) -> Vec<(&'static str, String)> {
    vec![
        ("gristmill-class", class.to_owned()),
        ("gristmill-reason", "bad".to_owned()),
        ("gristmill-attempts", "1".to_owned()),
    ]
}

/// Checks that the auditor says so after this damage.
#[track_caller]
fn finds(expected: &str, damage: impl FnOnce(&Remote)) {
    let remote = on_ministack(Events::None);
    remote.put("processed/foreign", b"somebody's");
    let sound = Sound::new(&remote);
    damage(&remote);
    let problems = sound.problems();
    assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:#?}");
}

#[test]
fn a_sound_bucket_is_sound() {
    let remote = on_ministack(Events::None);
    remote.put("processed/foreign", b"somebody's");
    let sound = Sound::new(&remote);
    assert_eq!(sound.problems(), [""; 0]);
    // Looking at the messages left them where they were.
    assert_eq!(sound.problems(), [""; 0]);
}

#[test]
fn lost_objects_and_messages() {
    finds("done ü: 0 in uploads, 0 in processed", |remote| remote.delete("processed/done ü"));
    finds("its output processed/done ü.copy is missing", |remote| remote.delete("processed/done ü.copy"));
    finds("dead: 0 in uploads", |remote| remote.delete("uploads/dead"));
    finds("live: 0 in uploads", |remote| remote.delete("uploads/live"));
    finds("live: 1 in uploads, 0 in processed, 0 messages", |remote| remote.empty(&remote.queue));
    finds("dead: 1 in uploads, 0 in processed, 0 messages, 0 dead", |remote| remote.empty(&remote.dead_letters));
}

#[test]
fn what_is_there_twice() {
    finds("done ü: 1 in uploads, 1 in processed", |remote| _ = remote.put("uploads/done ü", b"content"));
    finds("1 in processed, 1 messages", |remote| remote.send(&[about(remote, "uploads/done ü")]));
    finds("dead: 1 in uploads, 0 in processed, 1 messages", |remote| remote.send(&[about(remote, "uploads/dead")]));
    finds("0 messages, 1 dead letters; it should be processed", |remote| {
        remote.bury(&about(remote, "uploads/done ü"), &letter("reject"));
    });
}

#[test]
fn damaged_content() {
    finds("processed/done ü is not what was uploaded", |remote| {
        _ = remote.put_with("processed/done ü", b"conten", &made(owned()));
    });
    finds("(6 bytes) is not what copy makes of", |remote| {
        _ = remote.put_with("processed/done ü.copy", b"conten", &made(owned()));
    });
    finds("dead: 1 in uploads", |remote| _ = remote.put("uploads/dead", b"another"));
    finds("processed/foreign, which is somebody else's, was changed", |remote| remote.delete("processed/foreign"));
    finds("processed/foreign was written by the host", |remote| {
        _ = remote.put_with("processed/foreign", b"somebody's", &made(owned()));
    });
}

#[test]
fn wrong_attributes() {
    let put = |attributes: Attributes| {
        move |remote: &Remote| _ = remote.put_with("processed/done ü", b"content", &attributes)
    };
    finds("processed/done ü has no provenance", put(owned()));
    finds("processed/done ü lost attributes", put(made(Attributes::default())));
    finds("processed/done ü lost attributes", put(without("owner")));
    finds("was made from , and", put(without("gristmill-source-etag")));
    finds("nobody uploaded what processed/done ü was made from", put(without("gristmill-source")));
    finds("nobody uploaded what processed/done ü was made from", put(with("gristmill-source", "uploads/other")));
    finds("was made from 00, and", put(with("gristmill-source-etag", "00")));
    finds("went through [] and not through [\"copy\"]", put(without("gristmill-plugins")));
    finds("there never was a copy with the digest 00", put(with("gristmill-plugins", "copy@00")));
}

#[test]
fn what_nobody_knows_of() {
    finds("new has no provenance", |remote| _ = remote.put("processed/new", b"x"));
    finds("uploads/done ü should not have become processed/new", |remote| {
        _ = remote.put_with("processed/new", b"x", &made(owned()));
    });
    finds("uploads/new has no provenance", |remote| _ = remote.put("uploads/new", b"x"));
    finds("a queue has uploads/new, which nobody uploaded", |remote| remote.send(&[about(remote, "uploads/new")]));
    finds("the queue still has ?", |remote| remote.send(&["?".to_owned()]));
    finds("1 and not 0 dead letters are unreadable", |remote| remote.bury("?", &letter("malformed")));
}

#[test]
fn dead_letters_that_do_not_say_why() {
    for lacking in 0..3 {
        finds("expected a dead letter of class reject", |remote| {
            let mut attributes = letter("reject");
            attributes.remove(lacking);
            remote.bury(&about(remote, "uploads/dead"), &attributes);
        });
    }
    finds("expected a dead letter of class reject", |remote| {
        remote.bury(&about(remote, "uploads/dead"), &letter("trap"));
    });
}

#[test]
fn what_is_left_in_flight_or_unfinished() {
    finds("1 messages of the queue were left in flight", |remote| remote.hold(&remote.queue));
    finds("an upload in parts of processed/large was left", |remote| remote.begin_upload("processed/large"));
}
