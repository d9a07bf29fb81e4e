//! The budgets of one call, and the error that names the one that was used up.

use std::time::Duration;

use bytesize::ByteSize;
use wasmtime::ResourceLimiter;

use super::headroom::HEADROOM;
use crate::config::Limits;

/// A limit of [`Limits`] that a call hit. The text names the limit as it is written in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitHit {
    /// Linear memory.
    #[error("needed more memory than the limit `memory` of {} allows", ByteSize(*.0))]
    Memory(u64),
    /// Wall time.
    #[error("ran longer than the limit `deadline` of {} allows", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// Bytes of all outputs.
    #[error("wrote more than the limit `output_bytes` of {} allows", ByteSize(*.0))]
    OutputBytes(u64),
    /// Number of outputs.
    #[error("created more than the limit `outputs` of {0} allows")]
    Outputs(u32),
    /// Bytes of all log lines.
    #[error("logged more than the limit `log_bytes` of {} allows", ByteSize(*.0))]
    LogBytes(u64),
    /// Number of log lines.
    #[error("logged more lines than the limit `log_lines` of {0} allows")]
    LogLines(u32),
    /// Handles open at the same time.
    #[error("held more handles than the limit `handles` of {0} allows")]
    Handles(u32),
    /// Number of HTTP requests.
    #[error("sent more than the limit `http_requests` of {0} allows")]
    HttpRequests(u32),
    /// Bytes of HTTP requests and responses.
    #[error("sent and received more than the limit `http_bytes` of {} allows", ByteSize(*.0))]
    HttpBytes(u64),
    /// Bytes passed to the host in one call; fixed, see [`MAX_CALL_BYTES`].
    #[error("passed more than {} to the host in one call", ByteSize(MAX_CALL_BYTES as u64))]
    CallBytes,
    /// The guest's stack; fixed.
    #[error("overflowed its stack")]
    Stack,
}

impl LimitHit {
    /// The limit's name in the configuration, or of the fixed bound.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Deadline(_) => "deadline",
            Self::OutputBytes(_) => "output_bytes",
            Self::Outputs(_) => "outputs",
            Self::LogBytes(_) => "log_bytes",
            Self::LogLines(_) => "log_lines",
            Self::Handles(_) => "handles",
            Self::HttpRequests(_) => "http_requests",
            Self::HttpBytes(_) => "http_bytes",
            Self::CallBytes => "call_bytes",
            Self::Stack => "stack",
        }
    }
}

/// What a guest may pass to the host in one call: larger than any sensible chunk, small enough that all
/// slots together cannot hurt the host.
pub const MAX_CALL_BYTES: usize = 16 << 20;

/// What a call has used up so far.
#[derive(Debug)]
pub struct Budget {
    pub limits: Limits,
    memory: u64,
    /// What a plugin has without having asked for it. It counts once the plugin needs more than that.
    unasked: u64,
    pub output_bytes: u64,
    log_bytes: u64,
    log_lines: u32,
}

impl Budget {
    pub fn new(limits: Limits) -> Self {
        Self { limits, memory: 0, unasked: HEADROOM, output_bytes: 0, log_bytes: 0, log_lines: 0 }
    }

    /// Counts bytes about to be staged.
    pub fn write(&mut self, bytes: usize) -> Result<(), LimitHit> {
        let output_bytes = self.output_bytes.saturating_add(bytes as u64);
        if output_bytes > self.limits.output_bytes {
            return Err(LimitHit::OutputBytes(self.limits.output_bytes));
        }
        self.output_bytes = output_bytes;
        Ok(())
    }

    /// Counts an output about to be created beside `existing` ones.
    pub fn create(&self, existing: usize) -> Result<(), LimitHit> {
        if existing as u64 >= u64::from(self.limits.outputs) {
            return Err(LimitHit::Outputs(self.limits.outputs));
        }
        Ok(())
    }

    /// Counts a log line, before it is cut.
    pub fn log(&mut self, bytes: usize) -> Result<(), LimitHit> {
        self.log_lines = self.log_lines.saturating_add(1);
        if self.log_lines > self.limits.log_lines {
            return Err(LimitHit::LogLines(self.limits.log_lines));
        }
        self.log_bytes = self.log_bytes.saturating_add(bytes as u64);
        if self.log_bytes > self.limits.log_bytes {
            return Err(LimitHit::LogBytes(self.limits.log_bytes));
        }
        Ok(())
    }
}

/// An error here traps the guest at once: a language runtime that is merely told "no" would go on in a
/// way that hides the reason.
impl ResourceLimiter for Budget {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // The module's own rule: the guest expects to see this growth fail, and it takes no memory.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        if current > 0 {
            self.unasked = 0;
        }
        self.memory = self.memory.saturating_add((desired.saturating_sub(current)) as u64);
        if self.memory.saturating_sub(self.unasked) > self.limits.memory {
            return Err(LimitHit::Memory(self.limits.memory).into());
        }
        Ok(true)
    }

    /// The pool bounds tables by itself; a guest sees a growth beyond that fail.
    fn table_growing(&mut self, _current: usize, _desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AHEAD: usize = HEADROOM as usize;

    fn budget() -> Budget {
        Budget::new(Limits {
            output_bytes: 10,
            outputs: 2,
            log_bytes: 10,
            log_lines: 3,
            memory: 100,
            ..Limits::default()
        })
    }

    #[test]
    fn each_budget_ends_at_its_limit_and_not_before() {
        let mut b = budget();
        assert_eq!(b.write(10), Ok(()));
        assert_eq!(b.write(1), Err(LimitHit::OutputBytes(10)));
        assert_eq!(b.create(1), Ok(()));
        assert_eq!(b.create(2), Err(LimitHit::Outputs(2)));
        assert_eq!(b.log(10), Ok(()));
        assert_eq!(b.log(1), Err(LimitHit::LogBytes(10)));
        let mut b = budget();
        for _ in 0..3 {
            assert_eq!(b.log(0), Ok(()));
        }
        assert_eq!(b.log(0), Err(LimitHit::LogLines(3)));
    }

    #[test]
    fn a_write_that_is_refused_is_not_counted() {
        let mut b = budget();
        assert_eq!(b.write(11), Err(LimitHit::OutputBytes(10)));
        assert_eq!(b.output_bytes, 0);
    }

    #[test]
    fn a_growth_beyond_the_memory_s_own_maximum_fails_and_is_not_counted() {
        let mut b = budget();
        assert!(matches!(b.memory_growing(0, 1_000, Some(50)), Ok(false)));
        assert!(matches!(b.memory_growing(0, 100, None), Ok(true)));
    }

    #[test]
    fn what_was_not_asked_for_counts_once_it_is_used_up() {
        let mut b = budget();
        assert!(b.memory_growing(0, AHEAD + 100, None).is_ok());
        assert!(b.memory_growing(AHEAD + 100, AHEAD + 101, None).is_err());
        assert!(budget().memory_growing(0, AHEAD + 101, None).is_err());
    }

    #[test]
    fn memories_of_a_component_count_together() {
        let mut b = budget();
        assert!(b.memory_growing(0, 60, None).is_ok());
        assert!(b.memory_growing(0, 30, None).is_ok());
        assert!(b.memory_growing(30, 40, None).is_ok());
        let error = b.memory_growing(40, 41, None).map(|_| ()).map_err(|e| e.downcast_ref::<LimitHit>().copied());
        assert_eq!(error, Err(Some(LimitHit::Memory(100))));
    }
}
