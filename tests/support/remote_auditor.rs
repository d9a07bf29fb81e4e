//! An independent auditor of what hosts leave behind in a bucket, its queue and its dead letters: invariants
//! I1 to I4 of the design. Like the auditor of directories, it shares no code with the host.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    auditor::{Content, Fate, Object, Output, destination},
    host::sha256,
    remote_bucket::{Attributes, Queued, Remote, Stored, form_decode, percent_decode},
};

/// Metadata that begins so is the host's.
const OWN: &str = "gristmill-";

/// One upload, and what has to become of it.
pub struct Upload {
    pub object: Object,
    /// As S3 answered it.
    pub etag: String,
    pub attributes: Attributes,
}

/// What a bucket is held against.
pub struct RemoteAuditor<'a> {
    pub remote: &'a Remote,
    pub uploads: &'a [Upload],
    /// Every version of each plugin that has ever been there.
    pub versions: BTreeMap<String, BTreeSet<String>>,
    /// What others put there and the host must leave alone, with its content.
    pub foreign: BTreeMap<String, Vec<u8>>,
    /// How many dead letters have a message that nobody can read.
    pub unreadable: usize,
}

impl<'a> RemoteAuditor<'a> {
    pub fn new(remote: &'a Remote, uploads: &'a [Upload], versions: BTreeMap<String, BTreeSet<String>>) -> Self {
        Self { remote, uploads, versions, foreign: BTreeMap::new(), unreadable: 0 }
    }

    /// Checks everything, after the hosts have ended.
    #[track_caller]
    pub fn check(&self) {
        let problems = self.problems();
        assert!(problems.is_empty(), "the auditor found {} problems:\n{}", problems.len(), problems.join("\n"));
    }

    /// Everything that is wrong.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        // Before anybody looks at the messages, which takes them into work.
        for (name, queue) in [("queue", &self.remote.queue), ("dead letters", &self.remote.dead_letters)] {
            let (_, in_flight) = self.remote.counts(queue);
            if in_flight > 0 {
                problems.push(format!("{in_flight} messages of the {name} were left in flight"));
            }
        }
        let found = Found::read(self.remote);
        let sources = self.sources();
        for (key, stored) in &found.objects {
            self.check_object(key, stored, &sources, &mut problems);
        }
        for upload in self.uploads {
            self.check_fate(upload, &found, &mut problems);
        }
        self.check_messages(&found, &mut problems);
        for (key, content) in &self.foreign {
            if found.objects.get(key).is_none_or(|stored| stored.content != *content) {
                problems.push(format!("{key}, which is somebody else's, was changed"));
            }
        }
        let unfinished = self.remote.unfinished_uploads();
        problems.extend(unfinished.iter().map(|key| format!("an upload in parts of {key} was left unfinished")));
        problems
    }

    /// The uploads by what provenance calls them.
    fn sources(&self) -> BTreeMap<String, &Upload> {
        let names = |upload: &'a Upload| {
            // Where there is no room for the key, its digest stands for it.
            [upload.object.key.clone(), format!("sha256:{}", sha256(upload.object.key.as_bytes()))]
                .map(|name| (name, upload))
        };
        self.uploads.iter().flat_map(names).collect()
    }

    /// I2 and I3: all that is in the bucket was uploaded, or is an original or an output of an upload, whole,
    /// and says where it came from.
    fn check_object(
        &self,
        key: &str,
        stored: &Stored,
        sources: &BTreeMap<String, &Upload>,
        problems: &mut Vec<String>,
    ) {
        let provenance = Provenance::of(&stored.attributes);
        if self.foreign.contains_key(key) || sources.contains_key(key) {
            if provenance.is_some() {
                problems.push(format!("{key} was written by the host"));
            }
            return;
        }
        let Some(from) = provenance else {
            problems.push(format!("{key} has no provenance"));
            return;
        };
        for (name, digest) in &from.plugins {
            if !self.versions.get(name).is_some_and(|digests| digests.contains(digest)) {
                problems.push(format!("{key}: there never was a {name} with the digest {digest}"));
            }
        }
        let Some(upload) = sources.get(&from.source) else {
            problems.push(format!("nobody uploaded what {key} was made from, {}", from.source));
            return;
        };
        if from.etag != upload.etag {
            problems.push(format!("{key} was made from {}, and {} is what was uploaded", from.etag, upload.etag));
        }
        if key == destination(&upload.object.key) {
            check_original(key, upload, stored, &from, problems);
        } else if let Some(output) = upload.object.outputs().iter().find(|output| output.key == key) {
            check_output(output, stored, &from, problems);
        } else {
            problems.push(format!("{} should not have become {key}", upload.object.key));
        }
    }

    /// I1 and I4: each upload is in one place, and where it waits or died a message says so.
    fn check_fate(&self, upload: &Upload, found: &Found, problems: &mut Vec<String>) {
        let key = &upload.object.key;
        let source = found.objects.get(key);
        let to = destination(key);
        // A foreign object may be where the original would go.
        let moved = found.objects.get(&to).filter(|_| !self.foreign.contains_key(&to));
        let live = found.live.iter().filter(|message| message.keys.contains(key)).count();
        let dead: Vec<&Message> = found.dead.iter().filter(|letter| letter.is_about(key)).collect();
        let state = format!(
            "{key}: {} in uploads, {} in processed, {live} messages, {} dead letters",
            usize::from(source.is_some()),
            usize::from(moved.is_some()),
            dead.len()
        );
        let kept = source.is_some_and(|stored| {
            stored.etag == upload.etag
                && sha256(&stored.content) == upload.object.sha256
                && stored.attributes == upload.attributes
        });
        match &upload.object.fate {
            Fate::Processed { outputs, .. } => {
                if source.is_some() || moved.is_none() || live > 0 || !dead.is_empty() {
                    problems.push(format!("{state}; it should be processed"));
                }
                for output in outputs.iter().filter(|output| !found.objects.contains_key(&output.key)) {
                    problems.push(format!("{key}: its output {} is missing", output.key));
                }
            }
            Fate::Dead { class, .. } => {
                if !kept || moved.is_some() || live > 0 || dead.is_empty() {
                    problems.push(format!("{state}; it should be dead and as it was uploaded"));
                }
                problems.extend(dead.iter().filter_map(|letter| letter.wrong(class)));
            }
            Fate::Waiting => {
                if !kept || moved.is_some() || live == 0 || !dead.is_empty() {
                    problems.push(format!("{state}; it should be waiting, as it was uploaded"));
                }
            }
        }
    }

    /// Nothing is in a queue that nobody put there.
    fn check_messages(&self, found: &Found, problems: &mut Vec<String>) {
        let known: BTreeSet<&str> = self.uploads.iter().map(|upload| upload.object.key.as_str()).collect();
        for key in found.live.iter().chain(&found.dead).flat_map(|message| &message.keys) {
            if !known.contains(key.as_str()) {
                problems.push(format!("a queue has {key}, which nobody uploaded"));
            }
        }
        let unreadable: Vec<&Message> = found.dead.iter().filter(|letter| letter.keys.is_empty()).collect();
        if unreadable.len() != self.unreadable {
            problems.push(format!("{} and not {} dead letters are unreadable", unreadable.len(), self.unreadable));
        }
        problems.extend(unreadable.iter().filter_map(|letter| letter.wrong("malformed")));
        for message in found.live.iter().filter(|message| message.keys.is_empty()) {
            problems.push(format!("the queue still has {}", message.queued.body));
        }
    }
}

fn check_original(key: &str, upload: &Upload, stored: &Stored, from: &Provenance, problems: &mut Vec<String>) {
    if sha256(&stored.content) != upload.object.sha256 {
        problems.push(format!("{key} is not what was uploaded"));
    }
    let mut kept = stored.attributes.clone();
    kept.metadata.retain(|name, _| !name.starts_with(OWN));
    if kept != upload.attributes {
        problems.push(format!("{key} lost attributes: {kept:?} and not {:?}", upload.attributes));
    }
    let plugins: Vec<&str> = from.plugins.iter().map(|(name, _)| name.as_str()).collect();
    match &upload.object.fate {
        Fate::Processed { plugins: expected, .. } if plugins == *expected => {}
        Fate::Processed { plugins: expected, .. } => {
            problems.push(format!("{key} went through {plugins:?} and not through {expected:?}"));
        }
        Fate::Dead { .. } | Fate::Waiting => problems.push(format!("{key} should not have been moved")),
    }
}

fn check_output(output: &Output, stored: &Stored, from: &Provenance, problems: &mut Vec<String>) {
    let key = &output.key;
    let [(plugin, digest)] = &from.plugins[..] else {
        problems.push(format!("{key} was not made by one plugin: {:?}", from.plugins));
        return;
    };
    if *plugin != output.plugin {
        problems.push(format!("{key} was made by {plugin} and not by {}", output.plugin));
    }
    let whole = match &output.content {
        Content::Exactly(expected) => sha256(&stored.content) == *expected,
        Content::ByVersion(expected) => expected.get(digest) == Some(&sha256(&stored.content)),
        Content::Like(accept) => accept(&stored.content),
    };
    if !whole {
        problems.push(format!("{key} ({} bytes) is not what {plugin} makes of {}", stored.content.len(), from.source));
    }
}

struct Found {
    objects: BTreeMap<String, Stored>,
    live: Vec<Message>,
    dead: Vec<Message>,
}

impl Found {
    fn read(remote: &Remote) -> Self {
        let messages = |queue| remote.messages(queue).into_iter().map(Message::of).collect();
        Self { objects: remote.objects(), live: messages(&remote.queue), dead: messages(&remote.dead_letters) }
    }
}

/// A message with the keys that it is about; none when nobody can read it.
struct Message {
    keys: Vec<String>,
    queued: Queued,
}

impl Message {
    fn of(queued: Queued) -> Self {
        let keys = serde_json::from_str(&queued.body).map(|json| keys(&json)).unwrap_or_default();
        Self { keys, queued }
    }

    /// Of the objects of one message only one may have died.
    fn is_about(&self, key: &str) -> bool {
        match &self.keys[..] {
            [only] => only == key,
            several => {
                several.iter().any(|one| one == key)
                    && self.queued.attributes.get("gristmill-key").is_some_and(|dead| dead == key)
            }
        }
    }

    /// What is wrong with it as a dead letter of this class.
    fn wrong(&self, class: &str) -> Option<String> {
        let has =
            |name: &str, is: &dyn Fn(&str) -> bool| self.queued.attributes.get(name).is_some_and(|value| is(value));
        let attempts = |value: &str| value.parse::<u32>().is_ok_and(|attempts| attempts > 0);
        let says_why = has("gristmill-class", &|value| value == class)
            && has("gristmill-reason", &|value| !value.is_empty())
            && has("gristmill-attempts", &attempts);
        (!says_why).then(|| format!("expected a dead letter of class {class}: {:?}", self.queued))
    }
}

/// The keys that an event is about, in any of the shapes that it comes in.
fn keys(event: &Value) -> Vec<String> {
    if let Some(inner) = event["Message"].as_str() {
        return serde_json::from_str(inner).map(|json| keys(&json)).unwrap_or_default();
    }
    if let Some(key) = event["detail"]["object"]["key"].as_str() {
        return vec![key.to_owned()];
    }
    let records = event["Records"].as_array().map(Vec::as_slice).unwrap_or_default();
    records.iter().filter_map(|record| form_decode(record["s3"]["object"]["key"].as_str()?)).collect()
}

/// What an object says of where it came from.
struct Provenance {
    /// The key of an upload, or what stands for it.
    source: String,
    etag: String,
    /// Names and digests.
    plugins: Vec<(String, String)>,
}

impl Provenance {
    /// Nothing when the host did not write the object.
    fn of(attributes: &Attributes) -> Option<Self> {
        let metadata = &attributes.metadata;
        if !metadata.keys().any(|name| name.starts_with(OWN)) {
            return None;
        }
        let get = |name: &str| metadata.get(&format!("{OWN}{name}")).and_then(|value| percent_decode(value));
        let plugins = metadata.get("gristmill-plugins").map(|plugins| plugins.split(' ').collect::<Vec<_>>());
        let plugins = plugins.unwrap_or_default().into_iter().map(|plugin| {
            let (name, digest) = plugin.split_once('@').unwrap_or((plugin, ""));
            (percent_decode(name).unwrap_or_default(), percent_decode(digest).unwrap_or_default())
        });
        let (source, etag) = (get("source").unwrap_or_default(), get("source-etag").unwrap_or_default());
        Some(Self { source, etag, plugins: plugins.collect() })
    }
}
