//! The child's side: reads a file on standard input, answers with code on standard output.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setpriority_process, setrlimit,
};
use serde::{Deserialize, Serialize};

use super::{
    super::{LoadError, engine::code_config, load::detail},
    translate::translate,
};

/// The exit code when the file is at fault, EX_DATAERR of sysexits.h: a [`Complaint`] is on standard output.
pub(super) const REFUSED: u8 = 65;

/// The exit code when the child cannot do its work, EX_OSERR: the reason is on standard error.
pub(super) const UNABLE: u8 = 71;

/// The lowest priority there is, whatever the host's own is.
const NICE: i32 = 19;

/// What a child has to say of a file. Everything else can be said without compiling.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Complaint {
    Componentize(String),
    Invalid(String),
}

/// What `gristmill compile-plugin` does: gives up what compiling does not need, then compiles what is on standard
/// input. The parent watches the clock.
pub fn compile_standard_input(memory: u64, cpu_time: Duration) -> ExitCode {
    let answer = || -> io::Result<ExitCode> {
        give_up(memory, cpu_time)?;
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes)?;
        let engine = wasmtime::Engine::new(&code_config()).map_err(|error| io::Error::other(detail(&error)))?;
        let (answer, code) = match translate(&engine, &bytes) {
            Ok(code) => (code, ExitCode::SUCCESS),
            Err(error) => {
                let complaint = match error {
                    LoadError::Componentize(detail) => Complaint::Componentize(detail),
                    LoadError::Invalid(detail) => Complaint::Invalid(detail),
                    other => Complaint::Invalid(other.to_string()),
                };
                (serde_json::to_vec(&complaint)?, ExitCode::from(REFUSED))
            }
        };
        io::stdout().lock().write_all(&answer)?;
        Ok(code)
    };
    answer().unwrap_or_else(|error| {
        // A parent that does not listen any more needs no reason.
        let _ = writeln!(io::stderr(), "{error}");
        ExitCode::from(UNABLE)
    })
}

/// Before a byte of the file is read.
fn give_up(memory: u64, cpu_time: Duration) -> io::Result<()> {
    // A parent that was killed can't end its children.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Where memory runs out in spite of the limit, better this process than the host. Systems without the file
    // have other ways to choose.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let seconds = cpu_time.as_secs().max(1);
    // SIGXCPU at the one, SIGKILL at the other.
    limit(Resource::Cpu, seconds, seconds + 1)?;
    limit(Resource::As, memory, memory)?;
    // Pipes and sockets are not meant: it can write to no file.
    limit(Resource::Fsize, 0, 0)?;
    limit(Resource::Core, 0, 0)?;
    setpriority_process(None, NICE)?;
    Ok(())
}

/// Limits that somebody has set before stay where they are lower.
fn limit(resource: Resource, current: u64, maximum: u64) -> io::Result<()> {
    let now = getrlimit(resource);
    let lower = |now: Option<u64>, wanted: u64| Some(now.map_or(wanted, |now| now.min(wanted)));
    setrlimit(resource, Rlimit { current: lower(now.maximum, current), maximum: lower(now.maximum, maximum) })?;
    Ok(())
}
