//! What was decided about a plugin's versions, and must outlive the process.

use serde::{Deserialize, Serialize};

/// How many stable versions one after the other are remembered: how often somebody can roll back in a row.
pub const MAX_STABLE: usize = 5;

/// Versions of a plugin whose bytes are kept: the stable ones to go back to, and as many that were tried.
pub const MAX_VERSIONS: usize = 10;

/// One plugin's releases. Versions are named by the SHA-256 of their file in hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What `NAME.wasm` held when it was last looked at. When that changes, the file's new version is stable,
    /// whatever was decided before.
    pub file: Option<String>,
    /// The stable version and those before it, the current one last.
    pub stable: Vec<String>,
    /// What `NAME@canary.wasm` held when it was last looked at.
    pub canary: Option<String>,
    /// The canary that was decided about, either way. It is not tried again.
    pub decided: Option<String>,
    /// The versions whose bytes are kept, the newest last.
    pub kept: Vec<Kept>,
}

/// A version whose bytes are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// When it was last put into the directory, in seconds since 1970.
    pub since: u64,
}

/// Why a release cannot be changed by hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Nothing to promote.
    #[error("no canary of `{0}` is being tried: put one beside it as `{0}@canary.wasm`")]
    NoCanary(String),
    /// Nothing to go back to.
    #[error("no version of `{0}` before the current one is known: put the one that you want into the plugin directory")]
    NoEarlier(String),
    /// Too many newer ones.
    #[error("the version {1} of `{0}` is not kept any more: put it into the plugin directory")]
    NotKept(String, String),
}

impl Record {
    /// The stable version.
    #[must_use]
    pub fn current(&self) -> Option<&str> {
        self.stable.last().map(String::as_str)
    }

    /// The canary, while there is something to decide about it.
    #[must_use]
    pub fn trial(&self) -> Option<&str> {
        self.canary.as_deref().filter(|canary| self.decided.as_deref() != Some(canary))
    }

    /// What the two files hold now. A stable version whose file is gone is only that until the file is back.
    pub fn directory_holds(&mut self, file: Option<&str>, canary: Option<&str>) {
        self.canary = canary.map(str::to_owned);
        if self.file.as_deref() != file {
            self.file = file.map(str::to_owned);
            if let Some(file) = file {
                self.now_stable(file);
            }
        }
        // Perhaps somebody has copied the one over the other.
        if self.canary.is_some() && self.canary.as_deref() == self.current() {
            self.decided.clone_from(&self.canary);
        }
    }

    /// The canary becomes the stable version, and stays it until the file of the stable one changes.
    pub fn promote(&mut self, canary: &str) {
        self.now_stable(canary);
        self.decided = Some(canary.to_owned());
    }

    /// The canary takes no objects any more.
    pub fn reject(&mut self, canary: &str) {
        self.decided = Some(canary.to_owned());
    }

    /// By hand: the canary that is being tried, or was rejected, becomes the stable version. Answers which.
    ///
    /// # Errors
    /// When there is no canary.
    pub fn promote_by_hand(&mut self, plugin: &str) -> Result<String, ReleaseError> {
        let canary = self.canary.clone().filter(|canary| self.current() != Some(canary));
        let canary = canary.ok_or_else(|| ReleaseError::NoCanary(plugin.to_owned()))?;
        self.promote(&canary);
        Ok(canary)
    }

    /// By hand: a canary that is being tried is rejected; without one the version before the stable one takes its
    /// place. Answers what is stable from now on.
    ///
    /// # Errors
    /// When there is no version to go back to.
    pub fn roll_back_by_hand(&mut self, plugin: &str) -> Result<String, ReleaseError> {
        if let (Some(canary), Some(current)) = (self.trial().map(str::to_owned), self.current().map(str::to_owned)) {
            self.reject(&canary);
            return Ok(current);
        }
        let [.., before, _] = self.stable.as_slice() else {
            return Err(ReleaseError::NoEarlier(plugin.to_owned()));
        };
        let before = before.clone();
        // Else the bytes come from there.
        if self.file.as_ref() != Some(&before) && !self.kept.iter().any(|kept| kept.digest == before) {
            return Err(ReleaseError::NotKept(plugin.to_owned(), before));
        }
        self.stable.pop();
        Ok(before)
    }

    /// The bytes of this version are kept from now on, and those of the oldest ones not any more.
    pub fn keep(&mut self, digest: &str, size: u64, since: u64) {
        self.kept.retain(|kept| kept.digest != digest);
        self.kept.push(Kept { digest: digest.to_owned(), size, since });
        while self.kept.len() > MAX_VERSIONS && self.drop_oldest() {}
    }

    /// Keeps the oldest version's bytes no longer. Answers whether there was one that may be dropped.
    pub fn drop_oldest(&mut self) -> bool {
        let oldest = self.kept.iter().position(|kept| !self.needs(&kept.digest));
        oldest.map(|oldest| self.kept.remove(oldest)).is_some()
    }

    /// The oldest version whose bytes may be dropped.
    #[must_use]
    pub fn oldest(&self) -> Option<&Kept> {
        self.kept.iter().find(|kept| !self.needs(&kept.digest))
    }

    /// Whether the version may be called any moment, or be gone back to with a single step.
    fn needs(&self, digest: &str) -> bool {
        let files = [&self.file, &self.canary].into_iter().flatten();
        files.chain(self.stable.iter().rev().take(2)).any(|needed| needed == digest)
    }

    fn now_stable(&mut self, digest: &str) {
        if self.current() != Some(digest) {
            self.stable.push(digest.to_owned());
            if self.stable.len() > MAX_STABLE {
                self.stable.remove(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A plugin with both files.
    fn record(file: &str, canary: &str) -> Record {
        let mut record = Record::default();
        record.keep(file, 1, 1);
        record.keep(canary, 1, 2);
        record.directory_holds(Some(file), Some(canary));
        record
    }

    #[test]
    fn a_promoted_version_holds_until_the_file_changes() {
        let mut record = record("a", "b");
        assert_eq!((record.current(), record.trial()), (Some("a"), Some("b")));
        record.promote("b");
        record.directory_holds(Some("a"), Some("b"));
        assert_eq!((record.current(), record.trial()), (Some("b"), None));
        record.directory_holds(Some("c"), Some("b"));
        assert_eq!((record.current(), record.trial()), (Some("c"), None));
        record.directory_holds(Some("c"), Some("d"));
        assert_eq!((record.current(), record.trial()), (Some("c"), Some("d")));
    }

    #[test]
    fn the_operator_may_copy_the_canary_over_the_file() {
        let mut promoted = record("a", "b");
        promoted.promote("b");
        promoted.directory_holds(Some("b"), Some("b"));
        assert_eq!(promoted.stable, ["a", "b"]);
        let mut tried = record("a", "b");
        tried.directory_holds(Some("b"), Some("b"));
        tried.directory_holds(Some("c"), Some("b"));
        assert_eq!((tried.current(), tried.trial()), (Some("c"), None), "an old version is no canary of a new one");
    }

    #[test]
    fn a_rejected_canary_waits_for_another_file() {
        let mut record = record("a", "b");
        record.reject("b");
        assert_eq!((record.current(), record.trial()), (Some("a"), None));
        record.directory_holds(Some("a"), Some("c"));
        assert_eq!(record.trial(), Some("c"));
        record.directory_holds(Some("a"), Some("b"));
        assert_eq!(record.trial(), None);
    }

    #[test]
    fn by_hand_a_rejected_canary_can_be_promoted() {
        let mut record = record("a", "b");
        record.reject("b");
        assert_eq!(record.promote_by_hand("p"), Ok("b".to_owned()));
        assert_eq!((record.current(), record.trial()), (Some("b"), None));
        assert_eq!(record.promote_by_hand("p"), Err(ReleaseError::NoCanary("p".to_owned())));
    }

    #[test]
    fn a_rollback_takes_the_trial_first_and_then_one_version_after_the_other() {
        let mut record = record("a", "b");
        assert_eq!(record.roll_back_by_hand("p"), Ok("a".to_owned()));
        assert_eq!(record.trial(), None);
        record.promote_by_hand("p").unwrap();
        record.keep("c", 1, 3);
        record.directory_holds(Some("c"), None);
        assert_eq!(record.roll_back_by_hand("p"), Ok("b".to_owned()));
        assert_eq!(record.roll_back_by_hand("p"), Ok("a".to_owned()));
        assert_eq!(record.roll_back_by_hand("p"), Err(ReleaseError::NoEarlier("p".to_owned())));
    }

    #[test]
    fn a_promoted_canary_that_is_rolled_back_is_not_tried_again() {
        let mut record = record("a", "b");
        record.promote("b");
        assert_eq!(record.roll_back_by_hand("p"), Ok("a".to_owned()));
        assert_eq!((record.current(), record.trial()), (Some("a"), None));
    }

    #[test]
    fn nobody_goes_back_to_a_version_that_is_gone() {
        let mut record = record("a", "b");
        record.directory_holds(Some("c"), None);
        record.kept.clear();
        assert_eq!(record.roll_back_by_hand("p"), Err(ReleaseError::NotKept("p".to_owned(), "a".to_owned())));
        assert_eq!(record.current(), Some("c"));
    }

    #[derive(Debug, Clone)]
    enum Step {
        File(Option<u8>),
        Canary(Option<u8>),
        Decide(bool),
        Promote,
        RollBack,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let version = || proptest::option::of(0..20_u8);
        let step = prop_oneof![
            version().prop_map(Step::File),
            version().prop_map(Step::Canary),
            any::<bool>().prop_map(Step::Decide),
            Just(Step::Promote),
            Just(Step::RollBack),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        /// Whatever is done in whatever order: the stable version is one that was in the directory, its bytes and
        /// those of every file are kept, what was rejected takes no object, and nothing grows without end.
        #[test]
        fn a_record_stays_sound(steps in steps()) {
            let mut record = Record::default();
            let mut seen = Vec::new();
            for (at, step) in steps.into_iter().enumerate() {
                let mut put = |record: &mut Record, version: Option<u8>| {
                    let digest = version.map(|version| version.to_string());
                    if let Some(digest) = &digest {
                        record.keep(digest, 1, at as u64);
                        seen.push(digest.clone());
                    }
                    digest
                };
                match step {
                    Step::File(version) => {
                        let (before, canary) = (record.file.clone(), record.canary.clone());
                        let digest = put(&mut record, version);
                        record.directory_holds(digest.as_deref(), canary.as_deref());
                        if digest != before && digest.is_some() {
                            prop_assert_eq!(record.current(), digest.as_deref());
                        }
                    }
                    Step::Canary(version) => {
                        let (file, digest) = (record.file.clone(), put(&mut record, version));
                        record.directory_holds(file.as_deref(), digest.as_deref());
                    }
                    Step::Decide(promote) => {
                        if let Some(canary) = record.trial().map(str::to_owned) {
                            if promote { record.promote(&canary) } else { record.reject(&canary) }
                            prop_assert_eq!(record.trial(), None);
                        }
                    }
                    Step::Promote => {
                        if let Ok(promoted) = record.promote_by_hand("p") {
                            prop_assert_eq!(record.current(), Some(promoted.as_str()));
                        }
                    }
                    Step::RollBack => {
                        if let Ok(stable) = record.roll_back_by_hand("p") {
                            prop_assert_eq!(record.current(), Some(stable.as_str()));
                            prop_assert_eq!(record.trial(), None);
                        }
                    }
                }
                prop_assert!(record.stable.len() <= MAX_STABLE && record.kept.len() <= MAX_VERSIONS);
                prop_assert!(record.stable.iter().all(|version| seen.contains(version)));
                for needed in [&record.file, &record.canary].into_iter().flatten() {
                    prop_assert!(record.kept.iter().any(|kept| kept.digest == *needed), "{needed} is lost");
                }
            }
        }
    }
}
