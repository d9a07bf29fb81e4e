//! What a look at the live thing came to.

use serde::Serialize;

use crate::text::printable;

/// Of one text on a line.
const MAX_SHOWN: usize = 2_048;

/// Columns of the longest name of a check.
const CHECK_WIDTH: usize = 27;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// It works, but something will be lost or late one day.
    Warning,
    /// It does not work.
    Error,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub severity: Severity,
    /// Stays the same, for programs: `queue.retention`.
    pub check: &'static str,
    /// How it is.
    pub what: String,
    /// A command or a setting that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    pub fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { severity: Severity::Ok, check, what: what.into(), fix: None }
    }

    pub fn note(check: &'static str, what: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::ok(check, what) }
    }

    pub fn warning(check: &'static str, what: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::ok(check, what) }
    }

    pub fn error(check: &'static str, what: impl Into<String>) -> Self {
        Self { severity: Severity::Error, ..Self::ok(check, what) }
    }

    /// The same, with what mends it.
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let what = printable(&self.what, MAX_SHOWN);
        let mut lines = vec![format!("{:<8} {:<CHECK_WIDTH$} {what}", self.severity.as_str(), self.check)];
        lines.extend(
            self.fix.as_ref().map(|fix| format!("{:9}{:CHECK_WIDTH$} fix: {}", "", "", printable(fix, MAX_SHOWN))),
        );
        lines
    }
}
