//! Uploads to a bucket whose keys say what happens to them, and an auditor that was told of each.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    collections::BTreeSet,
    ops::Deref,
    sync::{Mutex, MutexGuard},
};

use bytes::Bytes;
use gristmill::{
    queue::DeadLetter,
    store::{PluginVersion, Provenance},
};

use super::{
    ledger::{Ledger, Seen, Snapshot, Upload},
    remote::{Dead, Metadata, Remote},
    toys::{Kind, destination},
};

/// A bucket and its queue, with a record of what was uploaded.
pub struct Audited {
    remote: Remote,
    ledger: Mutex<Ledger>,
}

impl Deref for Audited {
    type Target = Remote;

    fn deref(&self) -> &Remote {
        &self.remote
    }
}

impl Audited {
    /// The queue gives messages up after so many receives, whatever the host thinks.
    pub fn new(max_receives: u32) -> Self {
        Self { remote: Remote::new(max_receives), ledger: Mutex::default() }
    }

    /// Uploads object number `number` of a kind, `length` bytes that no other object has, and answers its key.
    pub fn upload_kind(&self, kind: Kind, number: usize, length: usize) -> String {
        let folder = ["", "a/", "b c+/", "ü/"][number % 4];
        let key = format!("uploads/{folder}{number}.{}", kind.suffix());
        let mut content = format!("{number}:").into_bytes();
        content.extend((content.len()..length).map(|at| b' ' + (at % 95) as u8));
        let etag = self.remote.upload(&key, content.clone());
        self.ledger().uploads.push(Upload { key: key.clone(), etag, content });
        key
    }

    /// Uploads an object without content.
    pub fn upload_empty(&self, key: &str) {
        let etag = self.remote.upload(key, Vec::new());
        self.ledger().uploads.push(Upload { key: key.to_owned(), etag, content: Vec::new() });
    }

    /// The keys of all uploads.
    pub fn uploads(&self) -> Vec<String> {
        self.ledger().uploads.iter().map(|upload| upload.key.clone()).collect()
    }

    /// Checks everything, when nothing is left to do: each object is in exactly one of the places where it may
    /// be, whole, once, from where it says, and what died has died of nothing but itself.
    #[track_caller]
    pub fn check(&self) {
        let seen = |(key, (etag, content, metadata)): (String, (String, Vec<u8>, Metadata))| {
            (key, Seen { etag, content, provenance: provenance(&metadata) })
        };
        let end = Snapshot {
            objects: self.remote.objects().into_iter().map(seen).collect(),
            dead: self.remote.dead().into_iter().map(letter).collect(),
            live: self.remote.live(),
        };
        let ledger = self.ledger();
        let mut wrong = ledger.at_end(&end);
        // The ledger lets a host that was stopped often enough give up on anything. Here that has no excuse.
        for (_, letter) in &end.dead {
            let expected = letter.key.as_deref().and_then(|key| Kind::of(key).dies_of());
            if expected != Some(&*letter.class) || letter.reason.is_empty() {
                wrong.push(format!("should not have died: {letter:?}"));
            }
        }
        let dying = ledger.uploads.iter().filter(|upload| Kind::of(&upload.key).dies_of().is_some());
        let moved = ledger.uploads.iter().filter(|upload| end.objects.contains_key(&destination(&upload.key)));
        let [dying, moved] = [dying.count(), moved.count()];
        // A message that could not be deleted after it was sent there comes to be there twice.
        let dead = end.dead.iter().map(|(_, letter)| letter.key.as_deref()).collect::<BTreeSet<_>>().len();
        if dead != dying || moved != ledger.uploads.len() - dying {
            let all = ledger.uploads.len();
            wrong.push(format!("of {all} uploads {dying} should be dead and the rest moved; {dead} and {moved} are"));
        }
        assert!(wrong.is_empty(), "the auditor found {} problems:\n{}", wrong.len(), wrong.join("\n"));
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }
}

/// As it is stored with an object, read without the host's help.
fn provenance(metadata: &Metadata) -> Option<Provenance> {
    let text = |name: &str| metadata.get(name).map(|value| decoded(value));
    let plugin = |plugin: &str| {
        let (name, digest) = plugin.split_once('@').unwrap();
        PluginVersion { name: decoded(name), digest: decoded(digest) }
    };
    Some(Provenance {
        source_key: text("gristmill-source")?,
        source_etag: text("gristmill-source-etag")?,
        source_version: text("gristmill-source-version"),
        plugins: metadata.get("gristmill-plugins").map_or_else(Vec::new, |all| all.split(' ').map(plugin).collect()),
    })
}

/// `%20` is a space.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next().unwrap()).to_digit(16).unwrap() as u8;
        bytes.push(if byte == b'%' { digit() << 4 | digit() } else { byte });
    }
    String::from_utf8(bytes).unwrap()
}

/// A dead letter as its attributes tell of it. Without any it was the queue that gave the message up.
fn letter((body, attributes): Dead) -> (Bytes, DeadLetter) {
    let text = |name: &str| attributes.get(name).cloned();
    let letter = DeadLetter {
        reason: text("gristmill-reason").unwrap_or_default(),
        class: text("gristmill-class").unwrap_or_else(|| "moved by the queue".to_owned()),
        plugin: text("gristmill-plugin").zip(text("gristmill-digest")),
        attempts: text("gristmill-attempts").map_or(0, |attempts| attempts.parse().unwrap()),
        key: text("gristmill-key"),
        backtrace: text("gristmill-backtrace"),
    };
    (body.into(), letter)
}
