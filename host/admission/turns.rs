//! Turns at the plugins: who waits, and who is next.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Of the bytes in flight, the part that one plugin's objects may have together, unless it is a single one:
/// what a slow plugin leaves to the others, as with its places.
const SHARE: (u64, u64) = (3, 4);

/// What may be under way at the same time.
pub(super) struct Bounds {
    /// Objects, from their first plugin until their results are stored. As many as the engine has places for
    /// instances, so that no guest ever finds them taken.
    pub turns: usize,
    /// Bytes of these objects.
    pub bytes: u64,
    /// Objects with a plugin, by its name.
    pub places: HashMap<String, usize>,
    /// The same for every other plugin.
    pub other_places: usize,
}

/// Objects, and what they have in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Load {
    objects: usize,
    bytes: u64,
}

impl Load {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn remove(&mut self, bytes: u64) {
        self.objects = self.objects.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn plus(self, other: Self) -> Self {
        Self { objects: self.objects + other.objects, bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// Whether an object of so many bytes may come to it.
    fn has_room(self, bytes: u64, most_objects: usize, most_bytes: u64) -> bool {
        self.objects < most_objects && (self.bytes == 0 || self.bytes.saturating_add(bytes) <= most_bytes)
    }
}

/// Names of the plugins of an object, sorted, each once.
type Names = Arc<[String]>;

struct Asking {
    /// Counts up, in the order of arrival.
    number: u64,
    bytes: u64,
    answer: oneshot::Sender<Turn>,
}

#[derive(Default)]
struct State {
    /// Of all turns.
    all: Load,
    /// By plugin; those without any are left out.
    plugins: HashMap<String, Load>,
    /// Who waits, in the order of arrival, by the plugins that they wait for.
    lines: BTreeMap<Names, VecDeque<Asking>>,
    asked: u64,
}

impl State {
    /// The next one who can go on, if there is any.
    ///
    /// Whoever finds one of his plugins busy is passed over by those who need other ones: that is what keeps
    /// a slow plugin from holding up the rest. But he keeps a place at each of his plugins free of those who
    /// came later, or an object of two plugins would wait until both happen to be free. For what all share
    /// nobody passes anybody, or a large object would never find enough bytes free.
    fn next(&mut self, bounds: &Bounds) -> Option<(Names, Asking)> {
        let names = self.whose_turn(bounds)?;
        let line = self.lines.get_mut(&names)?;
        let asking = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&names);
        }
        self.all.add(asking.bytes);
        names.iter().for_each(|name| self.plugins.entry(name.clone()).or_default().add(asking.bytes));
        Some((names, asking))
    }

    fn whose_turn(&self, bounds: &Bounds) -> Option<Names> {
        let mut first: Vec<(u64, u64, &Names)> =
            self.lines.iter().filter_map(|(names, line)| line.front().map(|it| (it.number, it.bytes, names))).collect();
        first.sort_unstable();
        let mut kept: HashMap<&str, Load> = HashMap::new();
        for (_, bytes, names) in first {
            let is_free = |name: &String| {
                let taken = self.plugins.get(name).copied().unwrap_or_default();
                let taken = taken.plus(kept.get(name.as_str()).copied().unwrap_or_default());
                let places = bounds.places.get(name).copied().unwrap_or(bounds.other_places);
                taken.has_room(bytes, places, bounds.bytes / SHARE.1 * SHARE.0)
            };
            if names.iter().all(is_free) {
                return self.all.has_room(bytes, bounds.turns, bounds.bytes).then(|| Arc::clone(names));
            }
            names.iter().for_each(|name| kept.entry(name).or_default().add(bytes));
        }
        None
    }
}

/// All turns of a host.
pub(super) struct Turns {
    bounds: Bounds,
    state: Mutex<State>,
}

impl Turns {
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, state: Mutex::default() })
    }

    /// Gets in line.
    pub fn ask<'p>(self: &Arc<Self>, plugins: impl IntoIterator<Item = &'p str>, bytes: u64) -> Waiting {
        let names: BTreeSet<&str> = plugins.into_iter().collect();
        let names: Names = names.into_iter().map(str::to_owned).collect();
        let (answer, answered) = oneshot::channel();
        let number = self.change(|state| {
            state.asked += 1;
            let asking = Asking { number: state.asked, bytes, answer };
            state.lines.entry(Arc::clone(&names)).or_default().push_back(asking);
            state.asked
        });
        Waiting { turns: Arc::clone(self), names, number, answered }
    }

    /// Changes something, and lets those go on who can then.
    fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let value = change(&mut state);
        let next: Vec<(Names, Asking)> = std::iter::from_fn(|| state.next(&self.bounds)).collect();
        drop(state);
        for (names, Asking { bytes, answer, .. }) in next {
            let places = names.iter().map(|name| (name.clone(), Arc::new(PluginPlace::new(self, name, bytes))));
            let turn = Turn { share: Arc::new(Share { turns: Arc::clone(self), bytes }), places: places.collect() };
            // Who asked may have gone this moment; the turn then ends here.
            let _ = answer.send(turn);
        }
        value
    }

    /// Whether nobody has a turn and nobody waits for one.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        state.all == Load::default() && state.plugins.is_empty() && state.lines.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody in line. Dropping it leaves the line.
pub(super) struct Waiting {
    turns: Arc<Turns>,
    names: Names,
    number: u64,
    answered: oneshot::Receiver<Turn>,
}

impl Waiting {
    /// Completes once, when it is its turn.
    pub async fn turn(&mut self) -> Option<Turn> {
        (&mut self.answered).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.turns.change(|state| {
            let Some(line) = state.lines.get_mut(&self.names) else { return };
            if let Ok(at) = line.binary_search_by_key(&self.number, |asking| asking.number) {
                line.remove(at);
            }
            if line.is_empty() {
                state.lines.remove(&self.names);
            }
        });
    }
}

/// An object's turn, from its first plugin until its results are stored, which is for how long they may take
/// memory. Dropping it gives back what has not been given back yet.
pub struct Turn {
    share: Arc<Share>,
    places: HashMap<String, Arc<PluginPlace>>,
}

impl Turn {
    /// Goes along with a call of the plugin: a guest that is given up may live on for a moment, and until it
    /// has ended its place is taken.
    #[must_use]
    pub fn hold(&self, plugin: &str) -> Hold {
        Hold { _share: Arc::clone(&self.share), _place: self.places.get(plugin).cloned() }
    }

    /// Whether anybody waits for a turn.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        !self.share.turns.lock().lines.is_empty()
    }

    /// The object does not need this plugin any more.
    pub fn is_done_with(&mut self, plugin: &str) {
        self.places.remove(plugin);
    }
}

/// See [`Turn::hold`].
pub struct Hold {
    _share: Arc<Share>,
    _place: Option<Arc<PluginPlace>>,
}

/// One of all turns, and the object's bytes.
struct Share {
    turns: Arc<Turns>,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.turns.change(|state| state.all.remove(self.bytes));
    }
}

/// A place at one plugin.
struct PluginPlace {
    turns: Arc<Turns>,
    plugin: String,
    bytes: u64,
}

impl PluginPlace {
    fn new(turns: &Arc<Turns>, plugin: &str, bytes: u64) -> Self {
        Self { turns: Arc::clone(turns), plugin: plugin.to_owned(), bytes }
    }
}

impl Drop for PluginPlace {
    fn drop(&mut self) {
        self.turns.change(|state| {
            if let Some(load) = state.plugins.get_mut(&self.plugin) {
                load.remove(self.bytes);
                if *load == Load::default() {
                    state.plugins.remove(&self.plugin);
                }
            }
        });
    }
}
