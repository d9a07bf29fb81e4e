//! What verbs say line by line.

use std::io::{self, IsTerminal as _, Write as _};

use super::Fatal;

/// Standard output, which whoever reads it may close: `gristmill dlq list | head` is no error.
pub(super) struct Out {
    open: bool,
}

impl Out {
    pub fn new() -> Self {
        Self { open: true }
    }

    /// Whether anybody still reads it.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether that is a person.
    pub fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    pub fn line(&mut self, line: &str) -> Result<(), Fatal> {
        if !self.open {
            return Ok(());
        }
        match writeln!(io::stdout().lock(), "{line}") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.open = false,
            Err(error) => return Err(Fatal::Failed(format!("cannot write to standard output: {error}"))),
            Ok(()) => {}
        }
        Ok(())
    }
}

/// What went wrong with one of many, while the work goes on.
pub(super) fn complain(what: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "gristmill: {what}");
}
