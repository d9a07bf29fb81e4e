//! What a component asks for by importing it, held against what it is granted.

use crate::config::Grants;

/// Something beyond an object, its outputs, the log and the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Requests over the network.
    Http,
    /// Connections of its own.
    Sockets,
    /// Files.
    Data,
    /// What time it is.
    Clocks,
    /// Randomness that is random.
    Randomness,
}

/// What comes of it that a plugin asks for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It has it.
    Granted,
    /// The import is there and leads to nothing. Language runtimes import these whether their program uses
    /// them or not, so refusing would refuse whole languages.
    Nothing,
    /// The plugin is refused.
    Refused,
}

/// One import that asks for a capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The interface, as the component names it.
    pub import: String,
    /// What it is.
    pub capability: Capability,
    /// What comes of it.
    pub answer: Answer,
}

impl Capability {
    fn of(import: &str) -> Option<Self> {
        let package = import.strip_prefix("wasi:")?.split_once('/')?.0;
        Some(match package {
            "http" => Self::Http,
            "sockets" => Self::Sockets,
            "filesystem" => Self::Data,
            "clocks" => Self::Clocks,
            "random" => Self::Randomness,
            _ => return None,
        })
    }

    /// The key of `[plugin.NAME]` that grants it, where anything does.
    #[must_use]
    pub fn key(self) -> Option<&'static str> {
        match self {
            Self::Http => Some("http"),
            Self::Sockets => None,
            Self::Data => Some("data"),
            Self::Clocks => Some("clocks"),
            Self::Randomness => Some("randomness"),
        }
    }

    /// What a plugin that is not granted it finds instead, where it is let in at all.
    #[must_use]
    pub fn instead(self) -> &'static str {
        match self {
            Self::Http | Self::Sockets => "the plugin is refused",
            Self::Data => "it finds no folder",
            Self::Clocks => "its time begins when the object was made, and passes only while it waits",
            Self::Randomness => "its randomness comes from the object, the same each time",
        }
    }

    fn answer(self, grants: &Grants) -> Answer {
        let (granted, otherwise) = match self {
            Self::Http => (!grants.http.is_empty(), Answer::Refused),
            Self::Sockets => (false, Answer::Refused),
            Self::Data => (grants.data.is_some(), Answer::Nothing),
            Self::Clocks => (grants.clocks, Answer::Nothing),
            Self::Randomness => (grants.randomness, Answer::Nothing),
        };
        if granted { Answer::Granted } else { otherwise }
    }
}

/// Everything that these imports ask for, in their order.
pub(super) fn asks(imports: &[String], grants: &Grants) -> Vec<Ask> {
    let asks = imports.iter().filter_map(|import| {
        let capability = Capability::of(import)?;
        Some(Ask { import: import.clone(), capability, answer: capability.answer(grants) })
    });
    asks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_seen_in_every_release_of_wasi() {
        let imports =
            ["gristmill:plugin/host@0.1.0", "wasi:io/poll@0.2.6", "wasi:http/types@0.2.12", "wasi:random/seed"]
                .map(str::to_owned);
        let found: Vec<_> = asks(&imports, &Grants::default())
            .into_iter()
            .map(|ask| (ask.import, ask.capability, ask.answer))
            .collect();
        let expected = [
            ("wasi:http/types@0.2.12".to_owned(), Capability::Http, Answer::Refused),
            ("wasi:random/seed".to_owned(), Capability::Randomness, Answer::Nothing),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_grant_answers_its_own_capability_only() {
        let grants = Grants { clocks: true, ..Grants::default() };
        assert_eq!(Capability::Clocks.answer(&grants), Answer::Granted);
        assert_eq!(Capability::Data.answer(&grants), Answer::Nothing);
        let everything = Grants {
            http: vec![crate::address::Server::parse(true, "example.com").unwrap()],
            data: Some(".".into()),
            clocks: true,
            randomness: true,
            ..Grants::default()
        };
        assert_eq!(Capability::Sockets.answer(&everything), Answer::Refused);
        assert_eq!(Capability::Http.answer(&everything), Answer::Granted);
    }
}
