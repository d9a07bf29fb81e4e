//! Which dead letters are meant.

use std::collections::BTreeSet;

use crate::{
    cli::DeadFilter,
    commands::{Fatal, out::complain},
    queue::{DeadLetters, DeadMessage},
};

/// IDs that an error names when several begin alike.
const ALIKE: usize = 5;

/// What a walk looks for.
pub(super) enum Selection {
    /// All that hold up against it; an empty filter takes all.
    Filter(DeadFilter),
    /// These whole IDs.
    Ids(BTreeSet<String>),
}

impl Selection {
    pub fn by(filter: DeadFilter) -> Self {
        Self::Filter(filter)
    }

    pub fn takes(&self, message: &DeadMessage) -> bool {
        match self {
            Self::Ids(ids) => ids.contains(&message.id),
            Self::Filter(DeadFilter { class, reason }) => {
                class.as_ref().is_none_or(|class| message.letter.class == *class)
                    && reason.as_ref().is_none_or(|reason| message.letter.reason.contains(reason))
            }
        }
    }
}

/// What some beginnings of IDs stand for.
#[derive(Debug)]
pub(super) struct Found {
    /// Each once, in the order of the walk.
    pub messages: Vec<DeadMessage>,
    /// What is wrong with the others.
    pub problems: Vec<String>,
}

impl Found {
    /// Says what is wrong; answers whether anything is.
    pub fn complain(&self) -> bool {
        self.problems.iter().for_each(|problem| complain(problem));
        !self.problems.is_empty()
    }
}

/// Walks to the end, since only then an ID is known to be the only one that begins so, and leaves all where
/// it is.
pub(super) async fn find<D: DeadLetters>(walk: &mut D, ids: &[String]) -> Result<Found, Fatal> {
    let mut wanted: Vec<Wanted> = ids.iter().map(|id| Wanted::new(id)).collect();
    loop {
        let messages = walk.next().await.map_err(Fatal::failed)?;
        if messages.is_empty() {
            return Ok(settle(wanted));
        }
        for message in messages {
            for wanted in &mut wanted {
                wanted.look_at(&message);
            }
            walk.keep(&message).await.map_err(Fatal::failed)?;
        }
    }
}

/// One ID as it was typed, and what it may stand for.
struct Wanted {
    typed: String,
    exact: Option<DeadMessage>,
    first: Option<DeadMessage>,
    /// The first few that begin so.
    alike: Vec<String>,
}

impl Wanted {
    fn new(typed: &str) -> Self {
        Self { typed: typed.to_owned(), exact: None, first: None, alike: Vec::new() }
    }

    fn look_at(&mut self, message: &DeadMessage) {
        if message.id == self.typed {
            self.exact = Some(message.clone());
        } else if message.id.starts_with(&self.typed) {
            self.first.get_or_insert_with(|| message.clone());
            if self.alike.len() <= ALIKE {
                self.alike.push(message.id.clone());
            }
        }
    }
}

fn settle(wanted: Vec<Wanted>) -> Found {
    let mut found = Found { messages: Vec::new(), problems: Vec::new() };
    for Wanted { typed, exact, first, alike } in wanted {
        let typed = crate::text::printable(&typed, 80);
        match (exact, first) {
            // Though others begin like it: there would be no other way to name it.
            (Some(message), _) => found.messages.push(message),
            (None, Some(message)) if alike.len() == 1 => found.messages.push(message),
            (None, Some(_)) => {
                let more = if alike.len() > ALIKE { ", …" } else { "" };
                let alike = alike.get(..ALIKE).unwrap_or(&alike).join(", ");
                found
                    .problems
                    .push(format!("several dead letters begin with `{typed}`, write more of it: {alike}{more}"));
            }
            (None, None) => {
                found.problems.push(format!("there is no dead letter `{typed}`: `gristmill dlq list` has them all"));
            }
        }
    }
    let mut seen = BTreeSet::new();
    found.messages.retain(|message| seen.insert(message.id.clone()));
    found
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::queue::{DeadLetter, QueueError, Receipt};

    pub fn dead(id: &str, class: &str, reason: &str) -> DeadMessage {
        DeadMessage {
            id: id.to_owned(),
            receipt: Receipt(id.to_owned()),
            body: "{}".into(),
            letter: DeadLetter {
                reason: reason.to_owned(),
                class: class.to_owned(),
                plugin: Some(("resize".to_owned(), "0123456789abcdef".to_owned())),
                attempts: 3,
                key: Some(format!("uploads/{id}")),
                backtrace: Some("inner <- outer".to_owned()),
            },
            died: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        }
    }

    /// Hands out two at a time; what it was told stands in its lists.
    #[derive(Default)]
    pub struct Fake {
        pub messages: Vec<DeadMessage>,
        pub kept: Vec<String>,
    }

    impl DeadLetters for Fake {
        async fn next(&mut self) -> Result<Vec<DeadMessage>, QueueError> {
            let rest = self.messages.split_off(self.messages.len().min(2));
            Ok(std::mem::replace(&mut self.messages, rest))
        }

        async fn keep(&mut self, message: &DeadMessage) -> Result<(), QueueError> {
            self.kept.push(message.id.clone());
            Ok(())
        }

        async fn redrive(&mut self, _: &DeadMessage) -> Result<(), QueueError> {
            Err(QueueError::Stale)
        }

        async fn purge(&mut self, _: &DeadMessage) -> Result<(), QueueError> {
            Err(QueueError::Stale)
        }
    }

    async fn found(there: &[&str], typed: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut walk = Fake { messages: there.iter().map(|id| dead(id, "trap", "")).collect(), kept: Vec::new() };
        let typed: Vec<String> = typed.iter().map(|id| (*id).to_owned()).collect();
        let found = find(&mut walk, &typed).await.unwrap();
        assert_eq!(walk.kept, there, "every message is left where it is");
        (found.messages.into_iter().map(|message| message.id).collect(), found.problems)
    }

    #[tokio::test]
    async fn the_beginning_of_an_id_is_enough_where_it_is_the_only_one() {
        let there = ["1", "12", "13", "abc", "abd"];
        assert_eq!(found(&there, &["12", "abc"]).await, (vec!["12".into(), "abc".into()], vec![]));
        assert_eq!(found(&there, &["1"]).await.0, ["1"], "a whole ID is always meant");
        assert_eq!(found(&there, &["abd", "abd"]).await.0, ["abd"], "twice is once");
        let (messages, problems) = found(&there, &["a", "13", "9"]).await;
        assert_eq!(messages, ["13"]);
        assert_eq!(problems[0], "several dead letters begin with `a`, write more of it: abc, abd");
        assert!(problems[1].starts_with("there is no dead letter `9`"), "{problems:?}");
        let many = ["a1", "a2", "a3", "a4", "a5", "a6", "a7"];
        assert!(found(&many, &["a"]).await.1[0].ends_with(": a1, a2, a3, a4, a5, …"));
    }

    #[test]
    fn every_part_of_a_filter_has_to_hold() {
        let filter = |class: Option<&str>, reason: Option<&str>| {
            Selection::by(DeadFilter { class: class.map(str::to_owned), reason: reason.map(str::to_owned) })
        };
        let message = dead("1", "trap", "integer overflow");
        for (class, reason, takes) in [
            (None, None, true),
            (Some("trap"), None, true),
            (Some("tra"), None, false),
            (None, Some("overflow"), true),
            (Some("trap"), Some("Overflow"), false),
            (Some("reject"), Some("overflow"), false),
        ] {
            assert_eq!(filter(class, reason).takes(&message), takes, "{class:?} {reason:?}");
        }
    }
}
