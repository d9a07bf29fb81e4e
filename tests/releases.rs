//! Releases of plugins by the real binary: canaries that are promoted or rolled back, changes by hand, shadows,
//! and objects that are run again.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod support {
    pub mod host;
    pub mod samples;
}
mod versions {
    mod by_hand;
    mod canaries;
    mod replay;
    mod shadows;
}

use std::{fs, path::Path};

use serde_json::Value;
use support::host::{Bucket, Finished, Host, gristmill};

/// Everything to the plugin `versioned`, failures tried again soon, and half of the objects to its canary.
const VERSIONED: &str = r#"
[retry]
max_attempts = 3
base = "5ms"
max = "20ms"

[[route]]
plugins = ["versioned"]

[plugin.versioned.canary]
share = "50%"
after = 20
failure_margin = "5%"
"#;

/// A host over a directory, and the objects that were dropped so far.
struct Releasing {
    bucket: Bucket,
    dropped: usize,
}

impl Releasing {
    /// `versioned` is the guest `digest-a`, which answers "a" to each object.
    fn new(configuration: &str) -> Self {
        let bucket = Bucket::with(&[], configuration);
        bucket.plugin("digest-a", "versioned");
        Self { bucket, dropped: 0 }
    }

    /// What each of so many new objects was answered.
    fn answers(&mut self, host: &Host, number: usize) -> Vec<String> {
        let first = self.dropped;
        self.dropped += number;
        let names = (first..self.dropped).map(|name| format!("{name:05}"));
        names.clone().for_each(|name| self.bucket.write(&format!("uploads/{name}"), name.as_bytes()));
        let keys: Vec<String> = names.clone().map(|name| format!("\"uploads/{name}\"")).collect();
        host.wait_for_output("the objects", |lines| {
            keys.iter().all(|key| lines.iter().any(|line| line.contains(key))).then_some(())
        });
        names.map(|name| self.bucket.read_text(&format!("processed/{name}.version"))).collect()
    }

    fn remove(&self, plugin: &str) {
        fs::remove_file(self.bucket.path(&format!("plugins/{plugin}.wasm"))).unwrap();
    }

    /// A verb of `gristmill plugin` about this directory.
    fn plugin(&self, verb: &str, more: &[&str]) -> Finished {
        gristmill(&[&["plugin", verb, "-d", self.bucket.root().to_str().unwrap()], more].concat())
    }
}

fn is(answers: &[String], expected: &str) -> bool {
    answers.iter().all(|answer| answer == expected)
}

/// Waits for a log line with this message from `start` on.
fn wait_for(host: &Host, start: usize, message: &str) -> Value {
    host.wait_for_log(message, |lines| {
        let mut lines = lines[start..].iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|line| line["message"] == message)
    })
}

fn has_logged(finished: &Finished, message: &str) -> bool {
    finished.err.iter().any(|line| line.contains(message))
}

/// Everything below a directory that has a name of its own, with its bytes.
fn snapshot(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| (path.display().to_string(), fs::read(path).unwrap_or_default())).collect()
}
