//! When a file is finished: plain state and times handed in, no clock and no file system.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::directory::Identity;

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// A file that nobody is known to write to is finished once it stayed the same for this long. A program
    /// that pauses longer between two writes was seen opening the file, or is beyond what can be known.
    pub(super) settle: Duration,
    /// A file that somebody was seen writing to is finished when it is closed, or when it stayed the same
    /// for this long: the close may have been lost, or the program keeps the file open for ever.
    pub(super) patience: Duration,
    /// Between two scans while the directory is watched: how late a file may be whose notification was lost.
    pub(super) scan: Duration,
    /// Between two scans while it cannot be watched: how late every file may be.
    pub(super) scan_unwatched: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let settle = Duration::from_secs(1);
        // Only inotify tells of closes.
        let patience = if cfg!(target_os = "linux") { Duration::from_secs(30) } else { settle };
        Self { settle, patience, scan: Duration::from_secs(10), scan_unwatched: Duration::from_secs(1) }
    }
}

/// Files that are not known to be finished.
#[derive(Debug)]
pub(super) struct Settling {
    pace: Pace,
    files: HashMap<String, File>,
    /// No file's wait ends before.
    next: Option<Instant>,
}

#[derive(Debug)]
struct File {
    state: State,
    /// At the last look.
    identity: Option<Identity>,
    /// Of the last look or event.
    since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has just appeared. If whoever made it opens it next, that one writes to it.
    Created,
    /// It is there; nobody is known to write to it.
    Found,
    /// Somebody writes to it.
    Writing,
}

impl Settling {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, files: HashMap::new(), next: None }
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The name appeared, by creation or as another name of a file.
    pub(super) fn created(&mut self, key: &str, now: Instant) {
        self.enter(key, State::Created, None, now);
    }

    /// The file's attributes were changed. What is known of it from other events stays.
    pub(super) fn touched(&mut self, key: &str, now: Instant) {
        if !self.knows(key) {
            self.enter(key, State::Found, None, now);
        }
    }

    /// The file was opened, to read or to write.
    pub(super) fn opened(&mut self, key: &str, now: Instant) {
        if self.files.get(key).is_some_and(|file| file.state == State::Created) {
            self.enter(key, State::Writing, None, now);
        }
    }

    /// The file was written to.
    pub(super) fn written(&mut self, key: &str, now: Instant) {
        self.enter(key, State::Writing, None, now);
    }

    /// The file was seen. What is known of it from events stays.
    pub(super) fn found(&mut self, key: &str, identity: Identity, now: Instant) {
        if !self.knows(key) {
            self.enter(key, State::Found, Some(identity), now);
        }
    }

    pub(super) fn knows(&self, key: &str) -> bool {
        self.files.contains_key(key)
    }

    /// The file was finished, moved away or removed.
    pub(super) fn forget(&mut self, key: &str) {
        self.files.remove(key);
    }

    /// When to ask for [`Settling::due`].
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// The files whose wait is over: to be looked at.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        if self.next.is_none_or(|next| now < next) {
            return Vec::new();
        }
        let pace = self.pace;
        self.next = self.files.values().map(|file| file.ends(&pace)).filter(|end| *end > now).min();
        self.files.iter().filter(|(_, file)| file.ends(&pace) <= now).map(|(key, _)| key.clone()).collect()
    }

    /// Whether the file, found like this at a look, is finished; if so it is forgotten. If it changed since
    /// the last look its wait begins anew.
    pub(super) fn finished(&mut self, key: &str, identity: Identity, now: Instant) -> bool {
        let Some(file) = self.files.get(key) else { return true };
        if file.identity == Some(identity) && file.ends(&self.pace) <= now {
            self.files.remove(key);
            return true;
        }
        self.enter(key, file.state, Some(identity), now);
        false
    }

    fn enter(&mut self, key: &str, state: State, identity: Option<Identity>, now: Instant) {
        let file = File { state, identity, since: now };
        let end = file.ends(&self.pace);
        self.next = Some(self.next.map_or(end, |next| next.min(end)));
        match self.files.get_mut(key) {
            Some(known) => *known = file,
            None => drop(self.files.insert(key.to_owned(), file)),
        }
    }
}

impl File {
    fn ends(&self, pace: &Pace) -> Instant {
        match (self.state, self.identity) {
            // Not looked at since it was last written to: a first look says from what its wait counts.
            (State::Writing, Some(_)) => self.since + pace.patience,
            _ => self.since + pace.settle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn identity(size: u64) -> Identity {
        Identity { inode: 1, size, modified: 0 }
    }

    fn settling() -> (Settling, Instant) {
        (Settling::new(Pace { settle: SECOND, patience: 30 * SECOND, ..Pace::default() }), Instant::now())
    }

    /// Looks at whatever is due, which has this size, until that time; answers when it was finished.
    fn run(settling: &mut Settling, from: Instant, seconds: u64, size: impl Fn(u64) -> u64) -> Option<u64> {
        (0..=seconds).find(|second| {
            let now = from + *second as u32 * SECOND;
            settling.due(now).into_iter().any(|key| settling.finished(&key, identity(size(*second)), now))
        })
    }

    #[test]
    fn a_found_file_is_finished_when_it_stayed_the_same() {
        let (mut settling, start) = settling();
        settling.found("a", identity(5), start);
        assert_eq!(run(&mut settling, start, 10, |_| 5), Some(1));
        assert_eq!(settling.len(), 0);
    }

    #[test]
    fn a_found_file_that_grows_is_waited_out() {
        let (mut settling, start) = settling();
        settling.found("a", identity(0), start);
        assert_eq!(run(&mut settling, start, 60, |second| second.min(20)), Some(21));
    }

    #[test]
    fn a_linked_file_is_finished_soon() {
        let (mut settling, start) = settling();
        settling.created("a", start);
        assert_eq!(run(&mut settling, start, 10, |_| 5), Some(2));
    }

    #[test]
    fn a_writer_that_pauses_is_waited_for() {
        let (mut settling, start) = settling();
        settling.created("a", start);
        settling.opened("a", start);
        assert_eq!(run(&mut settling, start, 29, |_| 0), None);
        settling.written("a", start + 29 * SECOND);
        assert_eq!(run(&mut settling, start + 29 * SECOND, 29, |_| 1), None);
        settling.forget("a");
        assert_eq!(settling.len(), 0);
    }

    #[test]
    fn a_close_that_was_lost_does_not_hold_a_file_for_ever() {
        let (mut settling, start) = settling();
        settling.written("a", start);
        assert_eq!(run(&mut settling, start, 60, |_| 7), Some(31));
    }

    #[test]
    fn reading_a_file_that_was_there_is_no_writing() {
        let (mut settling, start) = settling();
        settling.found("a", identity(5), start);
        settling.opened("a", start);
        assert_eq!(run(&mut settling, start, 10, |_| 5), Some(1));
    }

    #[test]
    fn a_scan_takes_no_file_from_its_writer() {
        let (mut settling, start) = settling();
        settling.written("a", start);
        settling.found("a", identity(5), start + 2 * SECOND);
        assert_eq!(run(&mut settling, start, 29, |_| 5), None);
    }

    #[test]
    fn nothing_is_due_early_and_nothing_is_forgotten() {
        let (mut settling, start) = settling();
        assert_eq!(settling.next(), None);
        settling.found("a", identity(5), start);
        settling.written("b", start + SECOND / 2);
        assert!(settling.due(start + SECOND / 2).is_empty());
        assert_eq!(settling.due(start + SECOND), ["a"]);
        assert!(settling.next().is_some_and(|next| next > start + SECOND));
    }
}
