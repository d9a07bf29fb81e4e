//! What can be wrong with a configuration, and where it was written.

use std::{cell::RefCell, fmt, path::PathBuf};

use crate::text::printable;

/// Where a value was given. The order is the order of a report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nowhere: a default, or something that is missing.
    Default,
    /// A command-line flag, as in `--slots`.
    Flag(&'static str),
    /// An environment variable.
    Environment(String),
    /// A line of the file, from 1.
    File {
        /// As it was given to the host.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("configuration"),
            Self::Flag(flag) => f.write_str(flag),
            Self::Environment(variable) => write!(f, "environment: {variable}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// A value and where it was given, for checks that look at two of them.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub value: T,
    pub origin: Origin,
}

impl<T> Located<T> {
    pub fn default(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: f(self.value), origin: self.origin }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{origin}: {message}")]
pub struct ConfigError {
    /// Where.
    pub origin: Origin,
    /// What, with the value and the way out.
    pub message: String,
}

/// Everything that is wrong, in the order of the file; displayed one to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects what is wrong while the reading goes on with what is right. Shared by the readers of all
/// sources, which are alive at the same time.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<ConfigError>>);

impl Problems {
    pub fn add(&self, origin: Origin, message: impl Into<String>) {
        self.0.borrow_mut().push(ConfigError { origin, message: message.into() });
    }

    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }

    pub fn into_errors(self) -> ConfigErrors {
        let mut errors = self.0.into_inner();
        errors.sort();
        errors.dedup();
        ConfigErrors(errors)
    }
}

/// Of a wrong value, the most bytes that a message repeats.
const MAX_SHOWN: usize = 80;

/// A value as it can stand in a one-line message.
pub(super) fn shown(value: &str) -> String {
    printable(value, MAX_SHOWN)
}

/// The known name that `name` was probably meant to be: at most one edit for each three characters away.
pub(super) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let reach = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= reach)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_name_and_a_stranger_does_not() {
        let known = ["memory", "deadline", "output_bytes", "outputs"];
        assert_eq!(nearest("memry", known), Some("memory"));
        assert_eq!(nearest("dedaline", known), Some("deadline"));
        assert_eq!(nearest("output", known), Some("outputs"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }
}
