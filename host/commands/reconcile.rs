//! `gristmill reconcile`: objects below the source prefix that nobody was told of get an event.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use humantime::format_rfc3339_millis;
use serde_json::json;

use super::{
    Fatal,
    out::{Out, complain},
};
use crate::{
    config::{Config, Place},
    event::{self, ObjectEvent},
    key,
    queue::{DeadLetters, DeadMessage, sqs::SqsQueue},
    store::s3::{Listed, S3Store},
    text::printable,
};

/// Of a key on a line.
const MAX_SHOWN: usize = 2_048;

/// Tells these events from S3's own in logs and in the queue. Whoever reads events takes it for a new object.
const EVENT_NAME: &str = "ObjectCreated:Reconcile";

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Younger objects are left alone: their notification may be on its way, or wait.
    pub older_than: Duration,
    /// Take no notice of the dead-letter queue.
    pub include_dead: bool,
    /// Send nothing.
    pub dry_run: bool,
    /// For programs.
    pub json: bool,
}

/// Looks for them and sends the events.
///
/// # Errors
/// When the bucket cannot be listed or a queue cannot serve. Nothing has to be undone then.
pub fn reconcile(config: &Config, how: &How) -> Result<ExitCode, Fatal> {
    match &config.place {
        Place::Directory(directory) => {
            let (directory, source) = (directory.display(), &config.source_prefix);
            complain(&format!(
                "nothing to do: in `{directory}` the host itself looks through `{source}` at its start, and every few \
                 seconds from then on"
            ));
            Ok(ExitCode::SUCCESS)
        }
        Place::Bucket(bucket) => super::runtime()?.block_on(async {
            let (queue, store) = super::connect(bucket, config).await?;
            let bucket = bucket.name.as_str();
            let dead = if how.include_dead { Dead::default() } else { Dead::on(&queue, bucket).await? };
            let judge = Judge { bucket, dead, before: SystemTime::now().checked_sub(how.older_than) };
            walk(&store, &queue, &config.source_prefix, &judge, how).await
        }),
    }
}

/// What was found so far.
#[derive(Debug, Default)]
struct Tally {
    queued: u64,
    failed: u64,
    younger: u64,
    dead: u64,
}

/// Page by page, so that no bucket is too large.
async fn walk(
    store: &S3Store,
    queue: &SqsQueue,
    prefix: &str,
    judge: &Judge<'_>,
    how: &How,
) -> Result<ExitCode, Fatal> {
    let (mut out, mut tally, mut after) = (Out::new(), Tally::default(), None);
    loop {
        let page = store.list(prefix, after.as_deref()).await.map_err(Fatal::failed)?;
        let mut forgotten = Vec::new();
        for object in page.objects {
            match judge.verdict(&object) {
                Verdict::Queue => forgotten.push(object),
                Verdict::Younger => tally.younger += 1,
                Verdict::Dead => tally.dead += 1,
                Verdict::Marker => {}
            }
        }
        send(queue, forgotten, judge, how, &mut tally, &mut out).await?;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    sum_up(&tally, how, &mut out)?;
    Ok(ExitCode::from(u8::from(tally.failed > 0)))
}

/// Says of each what became of it.
async fn send(
    queue: &SqsQueue,
    objects: Vec<Listed>,
    judge: &Judge<'_>,
    how: &How,
    tally: &mut Tally,
    out: &mut Out,
) -> Result<(), Fatal> {
    let answers = if how.dry_run {
        objects.iter().map(|_| Ok(())).collect()
    } else {
        let bodies: Vec<String> = objects.iter().map(|object| judge.event(object)).collect();
        queue.send(&bodies).await
    };
    for (object, answer) in objects.iter().zip(answers) {
        match answer {
            Ok(()) => {
                tally.queued += 1;
                out.line(&line(object, how))?;
            }
            Err(error) => {
                tally.failed += 1;
                complain(&format!("`{}`: {error}", printable(&object.key, MAX_SHOWN)));
            }
        }
    }
    Ok(())
}

fn action(how: &How) -> &'static str {
    if how.dry_run { "would be queued" } else { "queued" }
}

fn line(object: &Listed, how: &How) -> String {
    let modified = object.modified.map(|time| format_rfc3339_millis(time).to_string());
    if how.json {
        let Listed { key, size, etag, .. } = object;
        let line = json!({ "key": key, "size": size, "etag": etag, "modified": modified, "action": action(how) });
        return line.to_string();
    }
    format!("{}  {}  {}", action(how), modified.as_deref().unwrap_or("-"), printable(&object.key, MAX_SHOWN))
}

fn sum_up(tally: &Tally, how: &How, out: &mut Out) -> Result<(), Fatal> {
    let Tally { queued, failed, younger, dead } = tally;
    if how.json {
        let summary =
            json!({ "action": action(how), "done": queued, "failed": failed, "younger": younger, "dead": dead });
        return out.line(&json!({ "summary": summary }).to_string());
    }
    let mut line = format!("{queued} {}", action(how));
    if *failed > 0 {
        line.push_str(&format!(", {failed} could not be"));
    }
    if *dead > 0 {
        line.push_str(&format!(", {dead} left that are on the dead-letter queue (`gristmill dlq list`)"));
    }
    if *younger > 0 {
        line.push_str(&format!(
            ", {younger} left that are younger than {}",
            humantime::format_duration(how.older_than)
        ));
    }
    out.line(&line)
}

/// What becomes of an object in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Queue,
    Younger,
    Dead,
    /// It only shows a folder.
    Marker,
}

/// Knows which objects need an event.
struct Judge<'a> {
    bucket: &'a str,
    dead: Dead,
    /// Objects that were written later are left alone. Nothing: all are.
    before: Option<SystemTime>,
}

impl Judge<'_> {
    fn verdict(&self, object: &Listed) -> Verdict {
        // A store that says no time says nothing against it.
        let is_old = self.before.is_some_and(|before| object.modified.is_none_or(|modified| modified <= before));
        match object {
            _ if key::is_folder_marker(&object.key) => Verdict::Marker,
            _ if self.dead.has(object) => Verdict::Dead,
            _ if !is_old => Verdict::Younger,
            _ => Verdict::Queue,
        }
    }

    fn event(&self, object: &Listed) -> String {
        let event = ObjectEvent {
            bucket: self.bucket.to_owned(),
            key: object.key.clone(),
            size: Some(object.size),
            etag: object.etag.clone(),
            version_id: None,
            event_time: object.modified.map(|time| format_rfc3339_millis(time).to_string()),
            event_name: EVENT_NAME.to_owned(),
        };
        String::from_utf8_lossy(&event::encode(&event)).into_owned()
    }
}

/// What is on the dead-letter queue: keys, and of which version each event was, if it says so.
#[derive(Debug, Default)]
struct Dead(BTreeMap<String, Vec<Option<String>>>);

impl Dead {
    /// Looks at all of it and leaves it where it is. A bucket without a dead-letter queue has no dead letters.
    async fn on(queue: &SqsQueue, bucket: &str) -> Result<Self, Fatal> {
        let mut dead = Self::default();
        let mut walk = match queue.dead_letters() {
            Ok(walk) => walk,
            Err(error) => {
                complain(&format!("no object is taken for dead: {error}"));
                return Ok(dead);
            }
        };
        loop {
            let messages = walk.next().await.map_err(Fatal::failed)?;
            if messages.is_empty() {
                return Ok(dead);
            }
            for message in messages {
                dead.add(&message, bucket);
                walk.keep(&message).await.map_err(Fatal::failed)?;
            }
        }
    }

    fn add(&mut self, message: &DeadMessage, bucket: &str) {
        // What cannot be read is about no object that anybody could name.
        let events = event::parse(&message.body).unwrap_or_default();
        for event in events.objects.into_iter().filter(|event| event.bucket == bucket) {
            self.0.entry(event.key).or_default().push(event.etag);
        }
    }

    /// An object that was overwritten since is another one.
    fn has(&self, object: &Listed) -> bool {
        let is_this = |etag: &Option<String>| etag.is_none() || object.etag.is_none() || *etag == object.etag;
        self.0.get(&object.key).is_some_and(|etags| etags.iter().any(is_this))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{DeadLetter, Receipt};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn object(key: &str, etag: &str, modified: u64) -> Listed {
        Listed { key: key.to_owned(), size: 7, etag: Some(etag.to_owned()), modified: Some(at(modified)) }
    }

    fn judge(dead: Dead) -> Judge<'static> {
        Judge { bucket: "b", dead, before: Some(at(1_000)) }
    }

    fn dead(bodies: &[Vec<u8>]) -> Dead {
        let mut dead = Dead::default();
        for body in bodies {
            let letter = DeadLetter {
                reason: String::new(),
                class: "trap".to_owned(),
                plugin: None,
                attempts: 1,
                key: None,
                backtrace: None,
            };
            let (id, receipt) = ("1".to_owned(), Receipt("1".to_owned()));
            let message = DeadMessage { id, receipt, body: body.clone().into(), letter, died: at(0) };
            dead.add(&message, "b");
        }
        dead
    }

    #[test]
    fn what_is_old_and_not_dead_is_queued() {
        let judge = judge(Dead::default());
        assert_eq!(judge.verdict(&object("uploads/a", "1", 1_000)), Verdict::Queue);
        assert_eq!(judge.verdict(&object("uploads/a", "1", 1_001)), Verdict::Younger);
        assert_eq!(judge.verdict(&object("uploads/folder/", "1", 0)), Verdict::Marker);
        assert_eq!(judge.verdict(&Listed { modified: None, ..object("uploads/a", "1", 0) }), Verdict::Queue);
        let never = Judge { before: None, ..judge };
        assert_eq!(never.verdict(&object("uploads/a", "1", 0)), Verdict::Younger, "older than time itself");
    }

    #[test]
    fn what_is_dead_is_left_unless_it_was_overwritten() {
        let event = |bucket: &str, key: &str, etag: Option<&str>| {
            event::encode(&ObjectEvent {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                size: None,
                etag: etag.map(str::to_owned),
                version_id: None,
                event_time: None,
                event_name: "ObjectCreated:Put".to_owned(),
            })
        };
        let judge = judge(dead(&[
            event("b", "uploads/a b", Some("1")),
            event("b", "uploads/untold", None),
            event("another", "uploads/c", Some("1")),
            b"no event".to_vec(),
        ]));
        for (key, etag, expected) in [
            ("uploads/a b", "1", Verdict::Dead),
            ("uploads/a b", "2", Verdict::Queue),
            ("uploads/untold", "2", Verdict::Dead),
            ("uploads/c", "1", Verdict::Queue),
            ("uploads/d", "1", Verdict::Queue),
        ] {
            assert_eq!(judge.verdict(&object(key, etag, 0)), expected, "{key} {etag}");
        }
    }

    #[test]
    fn an_event_of_ours_is_read_like_one_of_s3s() {
        let body = judge(Dead::default()).event(&object("uploads/a b+ü", "e", 1));
        let events = event::parse(body.as_bytes()).unwrap();
        let expected = ObjectEvent {
            bucket: "b".to_owned(),
            key: "uploads/a b+ü".to_owned(),
            size: Some(7),
            etag: Some("e".to_owned()),
            version_id: None,
            event_time: Some("1970-01-01T00:00:01.000Z".to_owned()),
            event_name: EVENT_NAME.to_owned(),
        };
        assert_eq!(events.objects, [expected]);
        // And what was dead-lettered is found in the next list.
        assert!(dead(&[body.into_bytes()]).has(&object("uploads/a b+ü", "e", 1)));
    }
}
