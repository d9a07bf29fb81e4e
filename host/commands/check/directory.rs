//! Looks at the directory of local mode, and judges it.

use std::{io, path::Path};

use bytesize::ByteSize;

use super::finding::Finding;
use crate::directory::{self, Lock, LockError};

/// Below this a few large results fill it.
const LEAST_FREE: u64 = 1 << 30;

/// A directory.
pub(super) struct Facts {
    exists: bool,
    /// Whether a file can be made in it.
    writable: io::Result<()>,
    /// Who is at work on it.
    holder: Result<Option<String>, LockError>,
    /// Bytes.
    free: io::Result<u64>,
}

/// Leaves no trace: the file that is made has no name.
pub(super) fn look(directory: &Path) -> Facts {
    Facts {
        exists: directory.is_dir(),
        writable: tempfile::tempfile_in(directory).map(drop),
        holder: Lock::holder(directory),
        free: directory::free_bytes(directory),
    }
}

/// What is good and what is not.
pub(super) fn judge(facts: &Facts, directory: &Path) -> Vec<Finding> {
    let shown = directory.display();
    if !facts.exists {
        let what = format!("`{shown}` is not there");
        let fix = format!("make it, or let `gristmill dev {shown}` do so");
        return vec![Finding::error("directory", what).fix(fix)];
    }
    let writable = match &facts.writable {
        Ok(()) => Finding::ok("directory", format!("files can be made in `{shown}`")),
        Err(reason) => Finding::error("directory", format!("no file can be made in `{shown}`: {reason}"))
            .fix("let this user write there"),
    };
    let lock = match &facts.holder {
        Ok(None) => Finding::ok("directory.lock", "no gristmill is at work on it"),
        Ok(Some(holder)) => Finding::note("directory.lock", format!("a gristmill (process {holder}) is at work on it")),
        Err(error) => Finding::error("directory.lock", error.to_string()).fix("let this user write there"),
    };
    let free = match &facts.free {
        Ok(free) if *free < LEAST_FREE => {
            Finding::warning("directory.space", format!("only {} are free", ByteSize(*free))).fix("make room")
        }
        Ok(free) => Finding::ok("directory.space", format!("{} are free", ByteSize(*free))),
        Err(reason) => Finding::note("directory.space", format!("how much is free cannot be told: {reason}")),
    };
    vec![writable, lock, free]
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Severity, *};

    fn found(change: impl FnOnce(&mut Facts)) -> Vec<(Severity, &'static str)> {
        let mut facts = Facts { exists: true, writable: Ok(()), holder: Ok(None), free: Ok(LEAST_FREE) };
        change(&mut facts);
        let findings = judge(&facts, Path::new("d"));
        let not_ok = findings.iter().filter(|finding| finding.severity != Severity::Ok);
        not_ok.map(|finding| (finding.severity, finding.check)).collect()
    }

    #[test]
    fn what_is_wrong_with_a_directory_is_found() {
        use Severity::{Error, Note, Warning};
        assert_eq!(found(|_| {}), []);
        assert_eq!(found(|facts| facts.exists = false), [(Error, "directory")]);
        assert_eq!(found(|facts| facts.writable = Err(io::ErrorKind::PermissionDenied.into())), [(Error, "directory")]);
        assert_eq!(found(|facts| facts.holder = Ok(Some("7".to_owned()))), [(Note, "directory.lock")]);
        assert_eq!(found(|facts| facts.free = Ok(LEAST_FREE - 1)), [(Warning, "directory.space")]);
    }

    #[test]
    fn a_look_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let facts = look(folder.path());
        assert!(facts.exists && facts.writable.is_ok() && matches!(facts.holder, Ok(None)) && facts.free.is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let lock = Lock::acquire(folder.path()).unwrap();
        let holder = look(folder.path()).holder.unwrap();
        assert_eq!(holder, Some(std::process::id().to_string()));
        drop(lock);
        assert_eq!(look(folder.path()).holder.unwrap(), None);
    }
}
