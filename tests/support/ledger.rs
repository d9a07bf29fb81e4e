//! An auditor that was told of every upload, and holds a final state against the invariants.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gristmill::{event, queue::DeadLetter, store::Provenance};

use super::toys::{Kind, destination, digest};

/// What users did.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    /// In the order in which they were made.
    pub uploads: Vec<Upload>,
    /// Entity tags of uploads that users removed.
    pub deleted: BTreeSet<String>,
    /// Entity tags of uploads without an event of their own, and the tag that is in the event which stands
    /// for them.
    pub told_by: BTreeMap<String, String>,
    /// What was in the destination before, by key.
    pub foreign: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug, Clone)]
pub struct Upload {
    pub key: String,
    pub etag: String,
    pub content: Vec<u8>,
}

/// Everything that there is.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub objects: BTreeMap<String, Seen>,
    pub dead: Vec<(Bytes, DeadLetter)>,
    pub live: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub etag: String,
    pub content: Vec<u8>,
    pub provenance: Option<Provenance>,
}

impl Ledger {
    fn upload(&self, key: &str, etag: &str) -> Option<&Upload> {
        self.uploads.iter().find(|upload| upload.key == key && upload.etag == etag)
    }

    /// The uploads that an event of this entity tag tells of.
    fn told(&self, key: &str, etag: &str) -> impl Iterator<Item = &Upload> {
        self.uploads.iter().filter(move |upload| {
            let by = self.told_by.get(&upload.etag).unwrap_or(&upload.etag);
            upload.key == key && (upload.etag == etag || by == etag)
        })
    }

    /// The upload that counts.
    fn latest(&self, key: &str) -> Option<&Upload> {
        self.uploads.iter().rev().find(|upload| upload.key == key)
    }

    /// Whether nobody can expect anything of it any more.
    fn is_moot(&self, upload: &Upload) -> bool {
        self.deleted.contains(&upload.etag) || self.latest(&upload.key).is_none_or(|latest| latest.etag != upload.etag)
    }

    /// Whether something else wants to be where the upload or one of its outputs goes.
    pub fn has_rival(&self, upload: &Upload) -> bool {
        let places = |upload: &Upload| {
            let to = destination(&upload.key);
            let outputs = Kind::of(&upload.key).outputs(&upload.content);
            let mut places: Vec<String> = outputs.iter().map(|(suffix, ..)| format!("{to}.{suffix}")).collect();
            places.push(to);
            places
        };
        let mine = places(upload);
        mine.iter().any(|place| self.foreign.contains_key(place))
            || self
                .uploads
                .iter()
                .filter(|other| other.key != upload.key)
                .any(|other| places(other).iter().any(|place| mine.contains(place)))
    }

    /// Why the upload does not count as processed.
    fn unprocessed(&self, objects: &BTreeMap<String, Seen>, upload: &Upload) -> Option<String> {
        let Upload { key, etag, content } = upload;
        let to = destination(key);
        let check = |at: &str, content: &[u8], plugins: &[&str]| {
            let Some(seen) = objects.get(at) else { return Some(format!("`{at}` is missing")) };
            let Some(from) = &seen.provenance else { return Some(format!("`{at}` is foreign")) };
            let by: Vec<(String, String)> =
                from.plugins.iter().map(|version| (version.name.clone(), version.digest.clone())).collect();
            let expected: Vec<(String, String)> =
                plugins.iter().map(|name| ((*name).to_owned(), digest(name))).collect();
            if (&from.source_key, &from.source_etag) != (key, etag) || by != expected || seen.content != content {
                return Some(format!("`{at}` is not what `{key}` {etag} makes: {from:?}"));
            }
            None
        };
        let kind = Kind::of(key);
        let outputs = kind.outputs(content);
        let mut wrong = outputs
            .iter()
            .find_map(|(suffix, plugin, bytes)| check(&format!("{to}.{suffix}"), bytes, &[plugin]))
            .or_else(|| check(&to, content, kind.plugins()));
        if kind.dies_of().is_some() {
            wrong = Some(format!("`{key}` can never be processed"));
        }
        wrong
    }

    /// I4: a message may be acknowledged now.
    pub fn at_acknowledgement(&self, objects: &BTreeMap<String, Seen>, body: &[u8]) -> Vec<String> {
        let mut wrong = Vec::new();
        let Ok(events) = event::parse(body) else { return vec!["acknowledged what it could not read".to_owned()] };
        for event in events.objects {
            let etag = event.etag.unwrap_or_default();
            for upload in self.told(&event.key, &etag) {
                if objects.get(&event.key).is_some_and(|source| source.etag == upload.etag) {
                    wrong.push(format!(
                        "I4: `{}` {} was acknowledged while it lay in its place",
                        event.key, upload.etag
                    ));
                } else if !self.is_moot(upload)
                    && let Some(why) = self.unprocessed(objects, upload)
                {
                    wrong.push(format!("I4: `{}` {} was acknowledged, but {why}", event.key, upload.etag));
                }
            }
        }
        wrong
    }

    /// A message may become a dead letter now.
    pub fn at_death(&self, objects: &BTreeMap<String, Seen>, body: &[u8], letter: &DeadLetter) -> Vec<String> {
        let mut wrong = Vec::new();
        if letter.reason.is_empty() {
            wrong.push("a dead letter has no reason".to_owned());
        }
        if letter.class == "infrastructure" {
            wrong.push(format!("an outage made a dead letter: {letter:?}"));
        }
        let Ok(events) = event::parse(body) else { return wrong };
        let about = events.objects.iter().find(|event| letter.key.as_ref() == Some(&event.key));
        // What counts is the one of them that is still wanted.
        let told: Vec<&Upload> =
            about.iter().flat_map(|event| self.told(&event.key, event.etag.as_deref().unwrap_or_default())).collect();
        match told.iter().find(|upload| !self.is_moot(upload)).or(told.first()).copied() {
            None => wrong.push(format!("a dead letter is about none of its objects: {letter:?}")),
            Some(upload) if self.is_moot(upload) => {}
            Some(upload) => {
                // Two deliveries at the same time: one gives up while the other one, past the point of no
                // return, succeeds. Both have told the truth, and a redrive finds the object done.
                let overtaken = ends_anything(&letter.class) && self.unprocessed(objects, upload).is_none();
                if !overtaken && objects.get(&upload.key).is_none_or(|source| source.etag != upload.etag) {
                    wrong.push(format!("I1: `{}` gets {letter:?}, but is not in its place", upload.key));
                }
            }
        }
        wrong
    }

    /// I1, I2 and the rest of I5, when nothing is left to do.
    pub fn at_end(&self, end: &Snapshot) -> Vec<String> {
        let mut wrong = Vec::new();
        if end.live > 0 {
            wrong.push(format!("I5: {} messages are left", end.live));
        }
        let keys: BTreeSet<&str> = self.uploads.iter().map(|upload| upload.key.as_str()).collect();
        wrong.extend(keys.iter().filter_map(|key| self.whereabouts(end, self.latest(key)?)));
        for (key, seen) in &end.objects {
            wrong.extend(self.origin(key, seen));
        }
        for (key, content) in &self.foreign {
            if end.objects.get(key).is_none_or(|seen| seen.content != *content || seen.provenance.is_some()) {
                wrong.push(format!("`{key}` was somebody else's and has been overwritten"));
            }
        }
        wrong
    }

    /// I1: the upload is in exactly one of the places where it may be.
    fn whereabouts(&self, end: &Snapshot, upload: &Upload) -> Option<String> {
        let Upload { key, etag, .. } = upload;
        let letters: Vec<&DeadLetter> = end.letters(key, self.told_by.get(etag).unwrap_or(etag));
        let in_place = end.objects.get(key).is_some_and(|source| source.etag == *etag);
        if self.deleted.contains(etag) {
            return in_place.then(|| format!("`{key}` {etag} was removed, and is there again"));
        }
        match self.unprocessed(&end.objects, upload) {
            // A move is a copy and a removal in some stores, and a host can be stopped between them for good.
            None if in_place && !letters.iter().any(|letter| ends_anything(&letter.class) || is_aside(letter, key)) => {
                Some(format!("I1: `{key}` {etag} is in both places"))
            }
            None => None,
            Some(why) if letters.is_empty() => Some(format!("I1: `{key}` {etag} has no dead letter, but {why}")),
            Some(_) if !in_place => Some(format!("I1: `{key}` {etag} is a dead letter, but not in its place")),
            Some(_) => {
                // So can a rival that was first.
                let may = |class: &str| {
                    ends_anything(class)
                        || Kind::of(key).dies_of() == Some(class)
                        || (class == "conflict" && self.has_rival(upload))
                };
                let strange = letters.iter().find(|letter| letter.key.as_ref() == Some(key) && !may(&letter.class));
                strange.map(|letter| format!("`{key}` {etag} should not have died of {letter:?}"))
            }
        }
    }

    /// I2: the object is an upload in its place, foreign, or made whole from exactly one upload.
    fn origin(&self, key: &str, seen: &Seen) -> Option<String> {
        let Some(from) = &seen.provenance else {
            let known = self.foreign.contains_key(key)
                || self.latest(key).is_some_and(|upload| upload.etag == seen.etag && upload.content == seen.content);
            return (!known).then(|| format!("I2: `{key}` came from nowhere"));
        };
        let Some(upload) = self.upload(&from.source_key, &from.source_etag) else {
            return Some(format!("I2: `{key}` is from no upload: {from:?}"));
        };
        let to = destination(&upload.key);
        // Plugins of which another one then fails make nothing visible.
        let kind = Kind::of(&upload.key);
        let made = kind.outputs(&upload.content);
        let right = if key == to {
            seen.content == upload.content && kind.dies_of().is_none()
        } else {
            made.iter().any(|(suffix, plugin, bytes)| {
                key.strip_prefix(&*to) == Some(&format!(".{suffix}"))
                    && seen.content == *bytes
                    && from.plugins.iter().map(|by| (&*by.name, &*by.digest)).eq([(*plugin, &*digest(plugin))])
            })
        };
        (!right).then(|| format!("I2: `{key}` is not what its provenance says: {from:?}"))
    }

    /// What a state looks like without entity tags, for uploads that nothing else interferes with.
    pub fn essence(&self, end: &Snapshot) -> BTreeMap<String, String> {
        let mut essence = BTreeMap::new();
        for upload in self.uploads.iter().filter(|upload| !self.is_moot(upload) && !self.has_rival(upload)) {
            let Upload { key, etag, .. } = upload;
            let letters = end.letters(key, self.told_by.get(etag).unwrap_or(etag));
            if letters.iter().any(|letter| ends_anything(&letter.class)) {
                continue;
            }
            let mine = end.objects.iter().filter_map(|(at, seen)| {
                let from = seen.provenance.as_ref().filter(|from| from.source_key == *key)?;
                Some(format!("{at} {:?} {:?}", from.plugins, seen.content))
            });
            let all: Vec<String> = mine.collect();
            // A message with several objects has one class, of one of those that it died of.
            if !letters.is_empty() && letters.iter().all(|letter| letter.key.as_ref() != Some(key)) {
                continue;
            }
            let dead = !letters.is_empty() && self.unprocessed(&end.objects, upload).is_some();
            essence.insert(key.clone(), if dead { format!("dead {all:?}") } else { all.join("\n") });
        }
        essence
    }
}

/// Whether the letter is of the class of another object of its message, and says that this one failed, too.
fn is_aside(letter: &DeadLetter, key: &str) -> bool {
    letter.key.as_deref() != Some(key) && letter.reason.contains(&format!("; `{key}`: "))
}

/// A host that is stopped often enough, and a bucket that is slow often enough, can end any object.
fn ends_anything(class: &str) -> bool {
    class == "crashed" || class == "deadline"
}

impl Snapshot {
    /// The dead letters of messages about the upload.
    fn letters(&self, key: &str, etag: &str) -> Vec<&DeadLetter> {
        let about = |body: &Bytes| {
            event::parse(body).is_ok_and(|events| {
                events.objects.iter().any(|event| event.key == key && event.etag.as_deref() == Some(etag))
            })
        };
        self.dead.iter().filter(|(body, _)| about(body)).map(|(_, letter)| letter).collect()
    }
}
