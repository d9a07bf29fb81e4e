//! The same object once more, through a version that is only watched.
//!
//! It happens after the object's own work, on the bytes where they are by then, and nothing waits for it. What
//! the version makes goes nowhere.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::Instant,
};

use super::Context;
use crate::{
    config::Limits,
    made::{Digesting, Made},
    plugin::{Call, ObjectInfo},
    registry::Shadow,
    release::Role,
    store::Store,
};

/// Objects in the hands of shadows at the same time. The engine has so many places more than slots.
pub const SHADOWS: usize = 2;

/// Who runs shadows. Dropping it ends those under way.
pub struct Shadows {
    places: Arc<Semaphore>,
    tasks: Mutex<JoinSet<()>>,
}

impl Default for Shadows {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(SHADOWS)), tasks: Mutex::default() }
    }
}

impl Shadows {
    /// A place for one object, if one is free.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a shadow panicked");
            }
        }
        tasks.spawn(work);
    }
}

/// What the stable version made of an object, until a shadow has seen it, too.
pub(super) struct Seen {
    pub shadow: Arc<Shadow>,
    pub place: OwnedSemaphorePermit,
    pub made: Made,
    pub took: Duration,
    pub object: ObjectInfo,
    pub destination: String,
    pub settings: Arc<serde_json::Map<String, serde_json::Value>>,
    pub limits: Limits,
}

impl Seen {
    /// Lets the shadow see the object, which is at this key now.
    pub fn follow<S: Store>(self, ctx: &Context<S>, at: &str) {
        let (store, lanes, at) = (Arc::clone(&ctx.store), Arc::clone(&ctx.lanes), at.to_owned());
        ctx.shadows.spawn(async move {
            let Some(object) = self.find(&*store, &at).await else { return self.shadow.missed() };
            let outputs = Digesting::default();
            let call = Call {
                object: self.object.clone(),
                body: store.body(&object),
                outputs: Arc::new(outputs.clone()),
                destination: self.destination.clone(),
                settings: Arc::clone(&self.settings),
                limits: self.limits,
            };
            let started = Instant::now();
            let guest = Arc::clone(&self.shadow.plugin);
            // A plugin of its own where cores are shared, so that it takes nothing from the one that it watches.
            let name = Role::Shadow.stem(&guest.name);
            let ended = lanes.run(&name, async move { guest.call(call).await }).await;
            match ended.ok().and_then(|report| Made::of(&report, &outputs)) {
                Some(made) => {
                    let took = started.elapsed();
                    self.shadow.compared(&self.object.key, (&self.made, self.took), (&made, took));
                }
                None => self.shadow.missed(),
            }
            drop(self.place);
        });
    }

    /// The object, if it still is what the stable version saw.
    async fn find<S: Store>(&self, store: &S, at: &str) -> Option<S::Object> {
        let object = store.open(at).await.ok()?;
        let etag = &store.meta(&object).etag;
        if at == self.object.key {
            return (*etag == self.object.etag).then_some(object);
        }
        let there = store.inspect(at).await.ok()??;
        let from = there.provenance?;
        let is_it = there.etag == *etag && from.is_of(&self.object.key) && from.source_etag == self.object.etag;
        is_it.then_some(object)
    }
}
