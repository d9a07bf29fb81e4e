//! Circuits: a plugin that fails on most objects gets none for a while.
//!
//! A new version that is broken would otherwise carry every object of the night to the dead letters. So the
//! host counts, for each plugin, on how many of its last objects it failed. When that were most of them its
//! circuit opens: its objects wait in the queue, and the deliveries by which they find that out are no
//! attempts. From time to time one of them is let through as a probe; when that is processed the circuit
//! closes, and also when the plugin is replaced.
//!
//! It is the number of objects that counts, not of attempts, or a single bad one would do it. And what a
//! plugin rejects is no failure of it: to say so of an object is its work.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    provenance::PluginVersion,
    retry::{Class, Failure},
    text,
};

/// The last objects of a plugin that count: few enough for a change to show soon.
const WINDOW: usize = 20;

/// Failed objects that open a circuit, if they are more than half of those that count. Fewer may be bad
/// objects that came together; more would be lost when they use up their attempts first.
const FAILED: usize = 8;

/// What is kept of the last failure, to be repeated with each object that waits.
const MAX_REASON: usize = 500;

/// The circuits of all plugins of a host.
pub struct Circuits {
    /// Nothing where no circuit ever opens.
    probe_interval: Option<Duration>,
    /// By the plugin's name. One version has one at a time, so there are as many as plugins.
    circuits: Mutex<HashMap<String, Circuit>>,
}

struct Circuit {
    /// Of the version that it counts for.
    digest: String,
    /// Keys of the last objects, and whether the plugin failed on them.
    last: VecDeque<(String, bool)>,
    open: Option<Open>,
}

struct Open {
    /// The failure that opened it, or that of the last probe.
    reason: String,
    probe_interval: Duration,
    next_probe: Instant,
    is_probing: bool,
}

impl Circuit {
    fn new(digest: &str) -> Self {
        Self { digest: digest.to_owned(), last: VecDeque::new(), open: None }
    }

    fn failed(&self) -> usize {
        self.last.iter().filter(|(_, failed)| *failed).count()
    }

    fn count(&mut self, key: &str, failed: bool) {
        self.last.retain(|(other, _)| other != key);
        self.last.push_back((key.to_owned(), failed));
        if self.last.len() > WINDOW {
            self.last.pop_front();
        }
    }
}

impl Circuits {
    /// All closed. While one is open, a probe is let through each `probe_interval`; without one none ever opens,
    /// for a host that is to come to an end.
    #[must_use]
    pub fn new(probe_interval: Option<Duration>) -> Arc<Self> {
        Arc::new(Self { probe_interval, circuits: Mutex::default() })
    }

    /// Lets an object through to a plugin, unless its circuit is open.
    ///
    /// # Errors
    /// Why the object has to wait, and for how long.
    pub fn pass(self: &Arc<Self>, plugin: PluginVersion) -> Result<Pass, Failure> {
        let is_probe = {
            let mut circuits = self.lock();
            let circuit = circuits.entry(plugin.name.clone()).or_insert_with(|| Circuit::new(&plugin.digest));
            if circuit.digest != plugin.digest {
                if circuit.open.is_some() {
                    let PluginVersion { name, digest } = &plugin;
                    tracing::info!(plugin = name, digest, "circuit closed, the plugin was replaced");
                }
                *circuit = Circuit::new(&plugin.digest);
            }
            match &mut circuit.open {
                None => false,
                Some(open) if open.is_probing || Instant::now() < open.next_probe => return Err(open.wait(&plugin)),
                Some(open) => {
                    open.is_probing = true;
                    true
                }
            }
        };
        Ok(Pass { circuits: Arc::clone(self), plugin, is_probe })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Circuit>> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object that was let through to a plugin.
pub struct Pass {
    circuits: Arc<Circuits>,
    plugin: PluginVersion,
    is_probe: bool,
}

impl Pass {
    /// The plugin did its work on the object.
    pub fn worked(&self, key: &str) {
        self.change(|circuit| {
            circuit.count(key, false);
            if self.is_probe && circuit.open.take().is_some() {
                circuit.last.clear();
                let PluginVersion { name, digest } = &self.plugin;
                tracing::info!(plugin = name, digest, "circuit closed, a probe was processed");
            }
        });
    }

    /// The plugin failed on the object. What comes back is that failure, or the wait that it turns into when the
    /// circuit is open now.
    #[must_use]
    pub fn failed(&self, key: &str, failure: Failure) -> Failure {
        let wait = self.change(|circuit| {
            circuit.count(key, true);
            let interval = self.circuits.probe_interval?;
            let (failed, of) = (circuit.failed(), circuit.last.len());
            if circuit.open.is_none() && (failed < FAILED || failed * 2 <= of) {
                return None;
            }
            let reason = text::printable(&failure.reason, MAX_REASON);
            if circuit.open.is_none() {
                let PluginVersion { name, digest } = &self.plugin;
                tracing::error!(
                    plugin = name,
                    digest,
                    failed,
                    of,
                    reason,
                    "circuit opened, objects of the plugin wait until it is replaced or a probe is processed"
                );
            }
            let next_probe = Instant::now() + interval;
            let open = circuit.open.get_or_insert_with(|| Open {
                reason: reason.clone(),
                probe_interval: interval,
                next_probe,
                is_probing: false,
            });
            if self.is_probe {
                (open.reason, open.next_probe) = (reason, next_probe);
            }
            Some(open.wait(&self.plugin))
        });
        wait.flatten().unwrap_or(failure)
    }

    /// Nothing when the plugin was replaced meanwhile: what the old version does says nothing of the new one.
    fn change<T>(&self, change: impl FnOnce(&mut Circuit) -> T) -> Option<T> {
        let mut circuits = self.circuits.lock();
        circuits.get_mut(&self.plugin.name).filter(|circuit| circuit.digest == self.plugin.digest).map(change)
    }
}

impl Drop for Pass {
    /// A probe that came to no result, because the host stops for example, leaves that to the next object.
    fn drop(&mut self) {
        if self.is_probe {
            self.change(|circuit| circuit.open.iter_mut().for_each(|open| open.is_probing = false));
        }
    }
}

impl Open {
    fn wait(&self, plugin: &PluginVersion) -> Failure {
        let reason = format!(
            "waits, as plugin `{}` fails on most objects (replace it, or wait until a probe is processed), the last time like this: {}",
            plugin.name, self.reason
        );
        // At least a whole interval, or all that wait would come back for the one next probe.
        let after = self.next_probe.saturating_duration_since(Instant::now()).max(self.probe_interval);
        Failure { after: Some(after), ..Failure::new(Class::CircuitOpen, reason) }.by(plugin.clone())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn version(digest: &str) -> PluginVersion {
        PluginVersion { name: "resize".into(), digest: digest.into() }
    }

    fn circuits() -> Arc<Circuits> {
        Circuits::new(Some(INTERVAL))
    }

    fn trap() -> Failure {
        Failure::new(Class::Trap, "unreachable")
    }

    /// What becomes of an object on which the plugin fails.
    fn fail(circuits: &Arc<Circuits>, key: &str) -> Class {
        match circuits.pass(version("1")) {
            Ok(pass) => pass.failed(key, trap()).class,
            Err(wait) => {
                assert_eq!(wait.class, Class::CircuitOpen);
                panic!("{key} was not let through")
            }
        }
    }

    fn is_open(circuits: &Arc<Circuits>) -> bool {
        circuits.pass(version("1")).is_err()
    }

    fn opened() -> Arc<Circuits> {
        let circuits = circuits();
        let classes: Vec<Class> = (0..FAILED).map(|n| fail(&circuits, &n.to_string())).collect();
        // The one that opens it has to wait already.
        assert_eq!(classes[FAILED - 1], Class::CircuitOpen);
        assert!(classes[..FAILED - 1].iter().all(|class| *class == Class::Trap));
        circuits
    }

    #[tokio::test(start_paused = true)]
    async fn failures_on_most_objects_open_it() {
        let circuits = opened();
        let wait = circuits.pass(version("1")).map(|_| ()).unwrap_err();
        assert_eq!((wait.class, wait.after), (Class::CircuitOpen, Some(INTERVAL)));
        assert!(wait.reason.contains("`resize`") && wait.reason.contains("unreachable"), "{}", wait.reason);
        assert_eq!(wait.plugin, Some(version("1")));
    }

    #[tokio::test(start_paused = true)]
    async fn one_bad_object_does_not_open_it_however_often_it_is_tried() {
        let circuits = circuits();
        for _ in 0..WINDOW * 2 {
            assert_eq!(fail(&circuits, "bad"), Class::Trap);
        }
        assert!(!is_open(&circuits));
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_good_objects_as_bad_ones_keep_it_closed() {
        let circuits = circuits();
        for n in 0..WINDOW * 2 {
            circuits.pass(version("1")).map(|pass| pass.worked(&format!("good {n}"))).unwrap();
            assert_eq!(fail(&circuits, &format!("bad {n}")), Class::Trap);
        }
        // One more bad one than good ones among the last.
        assert_eq!(fail(&circuits, "the last straw"), Class::CircuitOpen);
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_at_a_time_and_its_success_closes_it() {
        let circuits = opened();
        advance(INTERVAL - Duration::from_millis(1)).await;
        assert!(is_open(&circuits));
        advance(Duration::from_millis(1)).await;
        let probe = circuits.pass(version("1")).unwrap();
        assert!(is_open(&circuits));
        // It fails, which is no attempt either, and the next one is due after another interval.
        assert_eq!(probe.failed("probe", trap()).class, Class::CircuitOpen);
        drop(probe);
        assert!(is_open(&circuits));
        advance(INTERVAL).await;
        // One that comes to nothing leaves it to the next.
        drop(circuits.pass(version("1")).unwrap());
        let probe = circuits.pass(version("1")).unwrap();
        probe.worked("probe");
        drop(probe);
        assert!(!is_open(&circuits));
        // And it counts from the start.
        assert_eq!(fail(&circuits, "another"), Class::Trap);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_were_under_way_when_it_opened_are_no_attempts_and_no_probes() {
        let circuits = circuits();
        let under_way = [circuits.pass(version("1")).unwrap(), circuits.pass(version("1")).unwrap()];
        let classes: Vec<Class> = (0..FAILED).map(|n| fail(&circuits, &n.to_string())).collect();
        assert_eq!(classes.last(), Some(&Class::CircuitOpen));
        assert_eq!(under_way[0].failed("late", trap()).class, Class::CircuitOpen);
        under_way[1].worked("late, too");
        drop(under_way);
        assert!(is_open(&circuits));
    }

    #[tokio::test(start_paused = true)]
    async fn another_version_starts_with_a_closed_one() {
        let circuits = opened();
        let before = Pass { circuits: Arc::clone(&circuits), plugin: version("1"), is_probe: false };
        for n in 0..FAILED {
            assert!(circuits.pass(version("2")).is_ok());
            // The old version's do not count against it.
            assert_eq!(before.failed(&n.to_string(), trap()).class, Class::Trap);
        }
        assert!(circuits.pass(version("2")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_to_end_never_opens_one() {
        let circuits = Circuits::new(None);
        for n in 0..WINDOW {
            assert_eq!(fail(&circuits, &n.to_string()), Class::Trap);
        }
    }
}
