//! A thread that removes staged files, since removing a large one takes long and destructors must not.

use std::{
    os::fd::OwnedFd,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use rustix::{fs::AtFlags, io::Errno};

/// Files that wait to be removed. More only come together when the disk is in trouble; the rest is then
/// left to the next start.
const WAITING: usize = 1_024;

/// Dropping it ends the thread after what was asked for before.
#[derive(Debug)]
pub(super) struct Janitor {
    names: Option<SyncSender<String>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Janitor {
    /// For files in `directory`.
    pub(super) fn start(directory: OwnedFd) -> std::io::Result<Self> {
        let (names, waiting) = sync_channel(WAITING);
        let thread = thread::Builder::new().name("janitor".to_owned()).spawn(move || work(&directory, &waiting))?;
        Ok(Self { names: Some(names), thread: Some(thread) })
    }

    /// Removes the file soon, if it is there.
    pub(super) fn remove(&self, name: String) {
        if let Some(names) = &self.names {
            // Full or ended: the next start removes it.
            let _ = names.try_send(name);
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.names = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(directory: &OwnedFd, names: &Receiver<String>) {
    for name in names {
        match rustix::fs::unlinkat(directory, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(reason) => tracing::warn!(name, %reason, "cannot remove a staged file; the next start tries again"),
        }
    }
}
