//! Turns to compute, shared fairly among plugins.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::oneshot;

/// What a turn is expected to take: how often a guest gives way. It is charged when the turn begins and put
/// right when it ends, or a plugin with many turns under way would seem to have had little.
pub(super) const TURN: Duration = Duration::from_millis(10);

/// What there is of one plugin. Who has none under way and waits for none is not there.
#[derive(Default)]
struct Line {
    /// How long it has computed, counted from that of the others when it came.
    used: Duration,
    under_way: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

struct State {
    free: usize,
    lines: BTreeMap<Arc<str>, Line>,
}

impl State {
    /// Gets in line. Who comes anew has had as much as who has had the least: what was saved up while there
    /// was nothing to do would keep the others out for as long.
    fn ask(&mut self, plugin: &Arc<str>, answer: oneshot::Sender<Turn>) {
        let least = self.lines.values().map(|line| line.used).min().unwrap_or_default();
        let line = self.lines.entry(Arc::clone(plugin)).or_insert_with(|| Line { used: least, ..Line::default() });
        line.waiting.push_back(answer);
    }

    /// Who is next: of the plugins that wait the one that has had the least, at a tie the one with fewer turns
    /// under way.
    fn next(&mut self) -> Option<(Arc<str>, oneshot::Sender<Turn>)> {
        if self.free == 0 {
            return None;
        }
        let waiting = self.lines.iter_mut().filter(|(_, line)| !line.waiting.is_empty());
        let (plugin, line) = waiting.min_by_key(|(_, line)| (line.used, line.under_way))?;
        let answer = line.waiting.pop_front()?;
        self.free -= 1;
        line.used += TURN;
        line.under_way += 1;
        Some((Arc::clone(plugin), answer))
    }

    fn end(&mut self, plugin: &Arc<str>, took: Duration) {
        self.free += 1;
        if let Some(line) = self.lines.get_mut(plugin) {
            line.used = (line.used + took).saturating_sub(TURN);
            line.under_way = line.under_way.saturating_sub(1);
        }
        self.leave(plugin);
    }

    fn leave(&mut self, plugin: &Arc<str>) {
        if self.lines.get(plugin).is_some_and(|line| line.under_way == 0 && line.waiting.is_empty()) {
            self.lines.remove(plugin);
        }
    }
}

/// All turns of the long lane.
pub(super) struct Turns(Mutex<State>);

impl Turns {
    pub fn new(free: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { free, lines: BTreeMap::new() })))
    }

    /// Gets in line for a turn.
    pub fn ask(self: &Arc<Self>, plugin: &Arc<str>) -> Waiting {
        let (answer, answered) = oneshot::channel();
        self.change(|state| state.ask(plugin, answer));
        Waiting { turns: Arc::clone(self), plugin: Arc::clone(plugin), answered: Some(answered) }
    }

    /// Changes something, and lets those go on who can then.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let next: Vec<_> = std::iter::from_fn(|| state.next()).collect();
        drop(state);
        for (plugin, answer) in next {
            // Who asked may have gone this moment; the turn then ends here.
            let _ = answer.send(Turn { turns: Arc::clone(self), plugin, took: Duration::ZERO });
        }
    }

    /// Whether nobody has a turn and nobody waits for one.
    #[cfg(test)]
    pub fn is_idle(&self, free: usize) -> bool {
        let state = self.lock();
        state.free == free && state.lines.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody in line. Dropping it leaves the line.
pub(super) struct Waiting {
    turns: Arc<Turns>,
    plugin: Arc<str>,
    /// Until the turn has come.
    answered: Option<oneshot::Receiver<Turn>>,
}

impl Waiting {
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let Some(answered) = &mut self.answered else { return Poll::Pending };
        // The other end is kept until it is answered.
        let Poll::Ready(Ok(turn)) = Pin::new(answered).poll(cx) else { return Poll::Pending };
        self.answered = None;
        Poll::Ready(turn)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Closed first, and a turn that has come meanwhile ends; then what cannot be answered any more goes.
        if self.answered.take().is_some() {
            self.turns.change(|state| {
                if let Some(line) = state.lines.get_mut(&self.plugin) {
                    line.waiting.retain(|answer| !answer.is_closed());
                }
                state.leave(&self.plugin);
            });
        }
    }
}

/// The right to compute until it ends, which a drop does too.
pub(super) struct Turn {
    turns: Arc<Turns>,
    plugin: Arc<str>,
    took: Duration,
}

impl Turn {
    pub fn end(mut self, took: Duration) {
        self.took = took;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.change(|state| state.end(&self.plugin, self.took));
    }
}
