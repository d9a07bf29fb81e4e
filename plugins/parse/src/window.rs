//! The bytes of the input that are at hand.

use std::io::{self, Read};

/// How much is asked for at a time. 64 KiB to 256 KiB a call is fastest on the host; this size keeps what
/// is worked on in the second-level cache.
const CHUNK_BYTES: usize = 128 * 1024;

/// A buffer that slides over the input. It grows only when its owner asks for more without giving anything
/// up, so the longest record decides its size.
pub struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the input before `start`.
    passed: u64,
    ended: bool,
}

impl<R: Read> Window<R> {
    pub fn new(source: R) -> Self {
        Self { source, buffer: Vec::new(), start: 0, end: 0, passed: 0, ended: false }
    }

    /// What is at hand.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Bytes of the input that were taken so far.
    pub fn position(&self) -> u64 {
        self.passed
    }

    /// Whether the input ends with what is at hand.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Gives up the first `count` bytes and hands them out a last time.
    pub fn take(&mut self, count: usize) -> &[u8] {
        let from = self.start;
        self.start = (from + count).min(self.end);
        self.passed += (self.start - from) as u64;
        &self.buffer[from..self.start]
    }

    /// Reads on; `false` at the end of the input.
    pub fn more(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.buffer.len() - self.end < CHUNK_BYTES {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.buffer.len() - self.end < CHUNK_BYTES {
                let wanted = (self.end + CHUNK_BYTES).max(self.buffer.len() + self.buffer.len() / 2);
                self.buffer.resize(wanted, 0);
            }
        }
        let space = self.end..self.end + CHUNK_BYTES;
        let count = loop {
            match self.source.read(&mut self.buffer[space.clone()]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.end += count;
        self.ended = count == 0;
        Ok(!self.ended)
    }

    /// Reads until `count` bytes are at hand or the input ends.
    pub fn fill(&mut self, count: usize) -> io::Result<()> {
        while self.end - self.start < count && self.more()? {}
        Ok(())
    }
}
