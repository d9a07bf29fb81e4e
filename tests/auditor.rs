//! What would be the use of an auditor that finds nothing? Each test damages a sound directory, made by hand.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

#[allow(dead_code, reason = "the auditor needs only a part of it")]
mod support {
    pub mod auditor;
    pub mod host;
}

use std::{collections::BTreeSet, fs, fs::File, os::unix::fs::MetadataExt as _};

use rusqlite::{Connection, params};
use serde_json::json;
use support::{
    auditor::{Auditor, Object, Output},
    host::{Bucket, sha256},
};

const VERSION: &str = "0123456789abcdef";

/// `done` was copied, `dead` is dead, `live` waits.
struct Sound {
    bucket: Bucket,
    manifest: Vec<Object>,
}

impl Sound {
    fn new() -> Self {
        let bucket = Bucket::new();
        bucket.write("processed/done", b"content");
        bucket.write("processed/done.copy", b"content");
        bucket.write("uploads/dead", b"rejected");
        bucket.write("uploads/live", b"waits");
        fs::create_dir(bucket.path(".gristmill")).unwrap();
        let sound = Self {
            bucket,
            manifest: vec![
                Object::copied("uploads/done", b"content"),
                Object::dead("uploads/dead", b"rejected", "reject"),
                Object::waiting("uploads/live", b"waits"),
            ],
        };
        let (queue, provenance) = (sound.database("queue"), sound.database("provenance"));
        queue
            .execute_batch(
                "CREATE TABLE messages (key, etag, receive_count);
                 CREATE TABLE dead_letters (key, etag, class, reason, attempts);",
            )
            .unwrap();
        provenance.execute_batch("CREATE TABLE provenance (key, etag, provenance)").unwrap();
        let insert = "INSERT INTO messages VALUES ('uploads/live', ?, 1)";
        queue.execute(insert, [sound.etag("uploads/live")]).unwrap();
        let insert = "INSERT INTO dead_letters VALUES ('uploads/dead', ?, 'reject', 'bad', 1)";
        queue.execute(insert, [sound.etag("uploads/dead")]).unwrap();
        sound.record("processed/done", "uploads/done");
        sound.record("processed/done.copy", "uploads/done");
        sound
    }

    fn database(&self, name: &str) -> Connection {
        Connection::open(self.bucket.path(&format!(".gristmill/{name}.db"))).unwrap()
    }

    /// Runs a statement that has to have an effect.
    fn sql(&self, database: &str, statement: &str) {
        assert!(self.database(database).execute(statement, []).unwrap() > 0, "{statement}");
    }

    fn etag(&self, key: &str) -> String {
        let meta = fs::metadata(self.bucket.path(key)).unwrap();
        let modified = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        format!("{:x}-{:x}-{modified:x}", meta.ino(), meta.size())
    }

    /// Records the file that is at the key now as made from a source.
    fn record(&self, key: &str, source: &str) {
        let provenance = json!({
            "source_key": source,
            "source_etag": self.etag("processed/done"),
            "source_version": null,
            "plugins": [{ "name": "copy", "digest": VERSION }],
        });
        let row = params![key, self.etag(key), provenance.to_string()];
        self.database("provenance").execute("INSERT INTO provenance VALUES (?, ?, ?)", row).unwrap();
    }

    fn problems(&self) -> Vec<String> {
        let mut auditor = Auditor::new(self.bucket.root(), &self.manifest);
        auditor.versions.insert("copy".to_owned(), BTreeSet::from([VERSION.to_owned()]));
        auditor.problems()
    }
}

/// Checks that the auditor says so after this damage.
#[track_caller]
fn finds(expected: &str, damage: impl FnOnce(&mut Sound)) {
    let mut sound = Sound::new();
    damage(&mut sound);
    let problems = sound.problems();
    assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:#?}");
}

#[test]
fn a_sound_directory_is_sound() {
    assert_eq!(Sound::new().problems(), [""; 0]);
}

#[test]
fn lost_objects() {
    finds("done: 0 in uploads, 0 in processed", |sound| {
        fs::remove_file(sound.bucket.path("processed/done")).unwrap();
    });
    finds("which is nowhere", |sound| fs::remove_file(sound.bucket.path("processed/done")).unwrap());
    finds("dead: 0 in uploads", |sound| fs::remove_file(sound.bucket.path("uploads/dead")).unwrap());
    finds("live: 0 in uploads", |sound| fs::remove_file(sound.bucket.path("uploads/live")).unwrap());
}

#[test]
fn lost_and_damaged_outputs() {
    finds("its output processed/done.copy is missing", |sound| {
        fs::remove_file(sound.bucket.path("processed/done.copy")).unwrap();
    });
    finds("processed/done.copy (3 bytes) is not what copy makes", |sound| {
        sound.bucket.write("processed/done.copy", b"con");
        sound.record("processed/done.copy", "uploads/done");
    });
    finds("its output processed/done.upper is missing", |sound| {
        sound.manifest[0] = Object::copied_and_upper("uploads/done", b"content");
    });
    finds("was made by copy and not by upper", |sound| {
        let output = Output::exactly("processed/done.copy".to_owned(), "upper", b"content");
        sound.manifest[0] = Object::processed("uploads/done", b"content", &["copy"], vec![output]);
    });
}

#[test]
fn changed_originals() {
    finds("processed/done is not what was uploaded", |sound| sound.manifest[0].sha256 = sha256(b"other"));
    finds("dead: 1 in uploads", |sound| sound.bucket.write("uploads/dead", b"changed"));
    finds("live: 1 in uploads", |sound| sound.bucket.write("uploads/live", b"changed"));
}

#[test]
fn missing_and_false_provenance() {
    let delete = "DELETE FROM provenance WHERE key = 'processed/done.copy'";
    finds("processed/done.copy has no provenance", |sound| sound.sql("provenance", delete));
    finds("processed/done has no provenance", |sound| {
        let file = File::options().write(true).open(sound.bucket.path("processed/done")).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    });
    let update = "UPDATE provenance SET provenance = replace(provenance, '0123', '3210')";
    finds("there never was a copy with the digest 3210", |sound| sound.sql("provenance", update));
    let update = "UPDATE provenance SET provenance = replace(provenance, 'uploads/done', 'uploads/live')";
    finds("nobody knows of processed/done, made from uploads/live", |sound| sound.sql("provenance", update));
    let update = "UPDATE provenance SET provenance = replace(provenance, '-7-', '-8-')";
    finds("its provenance says", |sound| sound.sql("provenance", update));
    finds("went through [\"copy\"]", |sound| {
        sound.manifest[0] = Object::processed("uploads/done", b"content", &[], Vec::new());
    });
}

#[test]
fn what_is_there_twice() {
    finds("done: 1 in uploads, 1 in processed", |sound| sound.bucket.write("uploads/done", b"content"));
    finds("done: 0 in uploads, 1 in processed, 1 messages", |sound| {
        sound.sql("queue", "INSERT INTO messages VALUES ('uploads/done', 'e', 1)");
    });
    finds("live: 1 in uploads, 0 in processed, 2 messages", |sound| {
        sound.sql("queue", "INSERT INTO messages SELECT * FROM messages");
    });
    finds("dead: 1 in uploads, 0 in processed, 0 messages, 2 dead letters", |sound| {
        sound.sql("queue", "INSERT INTO dead_letters SELECT * FROM dead_letters");
    });
}

#[test]
fn what_nobody_put_there() {
    finds("processed/more has no provenance", |sound| sound.bucket.write("processed/more", b"x"));
    finds("nobody knows of processed/done.other", |sound| {
        sound.bucket.write("processed/done.other", b"x");
        sound.record("processed/done.other", "uploads/done");
    });
    finds("nobody uploaded uploads/more", |sound| sound.bucket.write("uploads/more", b"x"));
    finds("the queue has uploads/more", |sound| {
        sound.sql("queue", "INSERT INTO messages VALUES ('uploads/more', 'e', 1)");
    });
    finds("moving/uploads/more is left over", |sound| {
        sound.bucket.write(".gristmill/staging/moving/uploads/more", b"x");
    });
    finds("outputs/0-0 is left over", |sound| sound.bucket.write(".gristmill/staging/outputs/0-0", b"x"));
}

#[test]
fn acknowledged_too_early() {
    finds("live: 1 in uploads, 0 in processed, 0 messages", |sound| sound.sql("queue", "DELETE FROM messages"));
    finds("dead: 1 in uploads, 0 in processed, 0 messages, 0", |sound| sound.sql("queue", "DELETE FROM dead_letters"));
}

#[test]
fn dead_letters_that_do_not_say_why() {
    for change in ["class = 'trap'", "reason = ''", "attempts = 0"] {
        finds("expected a dead letter of class reject", |sound| {
            sound.sql("queue", &format!("UPDATE dead_letters SET {change}"));
        });
    }
    finds("the dead letter is about e", |sound| sound.sql("queue", "UPDATE dead_letters SET etag = 'e'"));
    finds("processed/done should not have been moved", |sound| {
        sound.manifest[0] = Object::dead("uploads/done", b"content", "reject");
    });
}
