//! Threads that compile, so that a slow file holds up no other.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use super::load::{Source, Uncompiled};
use crate::plugin::{Compiler, LoadError, Plugin};

/// Files that are compiled at the same time. One may take minutes, and another one then still gets its turn; more of
/// them would only share the cores that objects need.
const AT_ONCE: usize = 2;

/// What came of compiling a file; nothing when it was another one by then.
pub(super) type Compiled = (Uncompiled, Option<Result<Plugin, LoadError>>);

/// Compiles files until it is dropped. That ends what is under way and joins the threads.
pub(super) struct Compiling {
    work: Arc<Work>,
    compiler: Compiler,
    threads: Vec<thread::JoinHandle<()>>,
}

struct Work {
    state: Mutex<State>,
    changed: Condvar,
}

/// No more than there are files, each at most once.
#[derive(Default)]
struct State {
    waiting: VecDeque<Uncompiled>,
    at_work: Vec<Uncompiled>,
    done: Vec<Compiled>,
    stopped: bool,
}

impl Compiling {
    /// Starts the threads. After each file they call `tell`.
    pub fn start(source: &Source, tell: impl Fn() + Clone + Send + 'static) -> io::Result<Self> {
        let work = Arc::new(Work { state: Mutex::default(), changed: Condvar::new() });
        let mut compiling = Self { work, compiler: source.compiler.clone(), threads: Vec::new() };
        for _ in 0..AT_ONCE {
            let (work, source, tell) = (Arc::clone(&compiling.work), source.clone(), tell.clone());
            let thread = thread::Builder::new().name("compile".into()).spawn(move || {
                while let Some(next) = work.next() {
                    tracing::info!(plugin = next.name, digest = next.digest.short(), "compiling plugin");
                    let compiled = source.compile(&next);
                    work.finish(next, compiled);
                    tell();
                }
            })?;
            compiling.threads.push(thread);
        }
        Ok(compiling)
    }

    /// Compiles these from now on, and no others but those that are under way.
    pub fn want(&self, uncompiled: Vec<Uncompiled>) {
        let mut state = self.work.lock();
        let State { at_work, done, .. } = &*state;
        let is_new = |wanted: &Uncompiled| !at_work.contains(wanted) && done.iter().all(|(file, _)| file != wanted);
        state.waiting = uncompiled.into_iter().filter(is_new).collect();
        drop(state);
        self.work.changed.notify_all();
    }

    /// What has come to its end since the last call.
    pub fn take_done(&self) -> Vec<Compiled> {
        std::mem::take(&mut self.work.lock().done)
    }

    /// Whether there is something to take.
    pub fn has_done(&self) -> bool {
        !self.work.lock().done.is_empty()
    }

    /// Whether nothing waits or is under way, or was not taken yet.
    pub fn is_idle(&self) -> bool {
        let state = self.work.lock();
        state.waiting.is_empty() && state.at_work.is_empty() && state.done.is_empty()
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        self.work.lock().stopped = true;
        self.work.changed.notify_all();
        self.compiler.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that compiles plugins panicked");
            }
        }
    }
}

impl Work {
    /// Waits for a file. Nothing once all is to end.
    fn next(&self) -> Option<Uncompiled> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(next) = state.waiting.pop_front() {
                state.at_work.push(next.clone());
                return Some(next);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self, file: Uncompiled, compiled: Option<Result<Plugin, LoadError>>) {
        let mut state = self.lock();
        state.at_work.retain(|at_work| *at_work != file);
        state.done.push((file, compiled));
    }

    /// Nothing in here can panic halfway.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
