//! What threads ask of the system's scheduler.

#![allow(unsafe_code, reason = "neither the standard library nor rustix has this call")]

use std::io;

/// The shortest turn that Linux gives.
#[cfg(target_os = "linux")]
const MOMENT_NANOS: u64 = 100_000;

/// Says of this thread that it computes for a moment at a time. Linux then lets it interrupt one that has asked
/// for nothing, from 6.12 on; before that such a request is accepted and has no effect.
///
/// # Errors
/// The system's own.
#[cfg(target_os = "linux")]
pub fn moments() -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER.cast_unsigned(),
        sched_flags: 0,
        // Whatever the operator has chosen stays.
        sched_nice: rustix::process::getpriority_process(None)?,
        sched_priority: 0,
        sched_runtime: MOMENT_NANOS,
        sched_deadline: 0,
        sched_period: 0,
    };
    const THIS_THREAD: libc::pid_t = 0;
    const NO_FLAGS: libc::c_uint = 0;
    // SAFETY: the kernel only reads, and from these attributes no more bytes than the first of them says.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, THIS_THREAD, &raw const attributes, NO_FLAGS) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Other systems have nothing of the kind.
#[cfg(not(target_os = "linux"))]
pub fn moments() -> io::Result<()> {
    Ok(())
}
