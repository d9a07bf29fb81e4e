//! What a call of a plugin made, as far as one version of the plugin can be held against another by it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    io::{BoxFuture, IoError, OutputMeta, Outputs},
    plugin::{CallError, CallReport, Digest, LimitHit, Verdict},
    retry::Class,
};

/// Of the outputs in which two calls differ, so many are named.
const MAX_DIFFERENCES: usize = 10;

/// A call that came to an end of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// `done`, `skipped`, or why not, in the words of dead letters: `reject`, `retry`, `trap`, `deadline`, ….
    pub verdict: &'static str,
    /// The reason for anything but `done`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In the order of creation. Only of a call that is done.
    pub outputs: Vec<MadeOutput>,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MadeOutput {
    /// The whole key.
    pub key: String,
    /// Bytes.
    pub bytes: u64,
    /// MIME type.
    pub content_type: String,
    /// In hexadecimal.
    pub sha256: String,
}

impl Made {
    /// What the report says, with the bytes as they went through `outputs`. `None` when the store failed under
    /// the call: that says nothing about the plugin.
    #[must_use]
    pub fn of(report: &CallReport, outputs: &Digesting) -> Option<Self> {
        let (verdict, reason) = match &report.result {
            Ok(Verdict::Done) => {
                let outputs = report.outputs.iter().zip(outputs.digests());
                let outputs = outputs.map(|(created, sha256)| MadeOutput {
                    key: created.meta.key.clone(),
                    bytes: created.size,
                    content_type: created.meta.content_type.clone(),
                    sha256: sha256.to_string(),
                });
                return Some(Self { verdict: "done", reason: None, outputs: outputs.collect() });
            }
            Ok(Verdict::Skipped(reason)) => ("skipped", reason.clone()),
            Err(CallError::Io(_)) => return None,
            Err(error) => (class(error).as_str(), error.to_string()),
        };
        Some(Self { verdict, reason: Some(reason), outputs: Vec::new() })
    }

    /// In what `other` differs from this, one thing each; reasons may. Empty when nothing does.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        if self.verdict != other.verdict {
            return vec![format!("verdict {} -> {}", self.verdict, other.verdict)];
        }
        let mut differences = Vec::new();
        for before in &self.outputs {
            match other.outputs.iter().find(|after| after.key == before.key) {
                None => differences.push(format!("{} is missing", before.key)),
                Some(after) if after.bytes != before.bytes => {
                    differences.push(format!("{}: {} bytes -> {}", before.key, before.bytes, after.bytes));
                }
                Some(after) if after.sha256 != before.sha256 => {
                    differences.push(format!("{}: other bytes, as many", before.key));
                }
                Some(after) if after.content_type != before.content_type => {
                    differences.push(format!("{}: {} -> {}", before.key, before.content_type, after.content_type));
                }
                Some(_) => {}
            }
        }
        let is_new = |after: &&MadeOutput| self.outputs.iter().all(|before| before.key != after.key);
        differences.extend(other.outputs.iter().filter(is_new).map(|after| format!("{} is new", after.key)));
        let surplus = differences.len().saturating_sub(MAX_DIFFERENCES);
        if surplus > 0 {
            differences.truncate(MAX_DIFFERENCES);
            differences.push(format!("and {surplus} more"));
        }
        differences
    }
}

/// What kind of failure it is.
#[must_use]
pub fn class(error: &CallError) -> Class {
    match error {
        CallError::Retry { .. } => Class::Retry,
        CallError::Reject(_) => Class::Reject,
        CallError::Limit { limit: LimitHit::Memory(_), .. } => Class::Memory,
        CallError::Limit { limit: LimitHit::Deadline(_), .. } => Class::Deadline,
        CallError::Limit { .. } => Class::Limit,
        CallError::Trap { .. } => Class::Trap,
        CallError::Io(IoError::Denied(_)) => Class::Denied,
        CallError::Io(_) => Class::Infrastructure,
    }
}

/// Takes the digest of each output. Nothing else becomes of the bytes, unless they go on. Clones share it.
#[derive(Clone, Default)]
pub struct Digesting(Arc<Mutex<Vec<Sha256>>>);

impl Digesting {
    /// Takes the digests on the way to other outputs.
    #[must_use]
    pub fn on_to<O: Outputs>(&self, outputs: O) -> OnTo<O> {
        OnTo { digesting: self.clone(), outputs }
    }

    /// Of each output, in the order of creation.
    fn digests(&self) -> Vec<Digest> {
        self.hashes().iter().map(|hash| Digest::from(hash.clone())).collect()
    }

    fn hashes(&self) -> MutexGuard<'_, Vec<Sha256>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, index: usize, bytes: &Bytes) {
        if let Some(hash) = self.hashes().get_mut(index) {
            hash.update(bytes);
        }
    }
}

impl Outputs for Digesting {
    fn create(&self, _: OutputMeta) {
        self.hashes().push(Sha256::new());
    }

    fn write(&self, index: usize, bytes: Bytes) -> BoxFuture<'_, Result<(), IoError>> {
        self.update(index, &bytes);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// See [`Digesting::on_to`].
pub struct OnTo<O> {
    digesting: Digesting,
    outputs: O,
}

impl<O: Outputs> Outputs for OnTo<O> {
    fn create(&self, meta: OutputMeta) {
        self.digesting.create(meta.clone());
        self.outputs.create(meta);
    }

    fn write(&self, index: usize, bytes: Bytes) -> BoxFuture<'_, Result<(), IoError>> {
        self.digesting.update(index, &bytes);
        self.outputs.write(index, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(verdict: &'static str, outputs: &[(&str, u64, &str)]) -> Made {
        let output = |(key, bytes, sha256): &(&str, u64, &str)| MadeOutput {
            key: (*key).to_owned(),
            bytes: *bytes,
            content_type: "text/plain".to_owned(),
            sha256: (*sha256).to_owned(),
        };
        Made { verdict, reason: None, outputs: outputs.iter().map(output).collect() }
    }

    #[test]
    fn differences_are_named() {
        let before = made("done", &[("a", 1, "x"), ("b", 2, "y"), ("c", 3, "z")]);
        assert!(before.differences(&before).is_empty());
        let after = made("done", &[("b", 2, "other"), ("a", 5, "x"), ("d", 3, "z")]);
        assert_eq!(
            before.differences(&after),
            ["a: 1 bytes -> 5", "b: other bytes, as many", "c is missing", "d is new"]
        );
        assert_eq!(before.differences(&made("trap", &[])), ["verdict done -> trap"]);
        let mut other_type = before.clone();
        other_type.outputs[1].content_type = "text/html".to_owned();
        assert_eq!(before.differences(&other_type), ["b: text/plain -> text/html"]);
    }

    #[test]
    fn a_thousand_differences_are_not_a_thousand_words() {
        let keys: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
        let outputs: Vec<(&str, u64, &str)> = keys.iter().map(|key| (key.as_str(), 1, "x")).collect();
        let differences = made("done", &outputs).differences(&made("done", &[]));
        assert_eq!((differences.len(), differences[10].as_str()), (11, "and 990 more"));
    }

    #[tokio::test]
    async fn digests_are_those_of_the_bytes() {
        let outputs = Digesting::default();
        for key in ["a", "b"] {
            outputs.create(OutputMeta { key: key.into(), content_type: "x/y".into(), metadata: Vec::new() });
        }
        outputs.write(1, Bytes::from_static(b"he")).await.unwrap();
        outputs.write(1, Bytes::from_static(b"llo")).await.unwrap();
        assert_eq!(outputs.digests(), [Digest::of(b""), Digest::of(b"hello")]);
    }
}
