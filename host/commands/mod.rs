//! The verbs that do not serve, and the ways in which any verb can end badly.

pub mod check;
pub mod plugin;

use std::{fmt, process::ExitCode};

/// Why the process ends without having done what it was asked to. The codes are those of sysexits.h.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Exit code 64.
    #[error("{0}")]
    Usage(String),
    /// Exit code 78. The text may have several lines, one a problem.
    #[error("wrong configuration\n{0}")]
    Config(String),
    /// Exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl Fatal {
    /// Wraps the error of something that the host cannot do without.
    pub fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// What the process exits with.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 64,
            Self::Config(_) => 78,
            Self::Failed(_) => 1,
        })
    }
}

/// The bucket's name when a directory plays it. Not the directory's, which may be renamed while there are
/// messages about what is in it.
pub const LOCAL_BUCKET: &str = "local";
