//! One use of a plugin for an object: which version is called, and what came of it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Context, host_panic, object_info, provenance, shadow::Seen};
use crate::{
    admission::Turn,
    config::{Limits, Use},
    event::ObjectEvent,
    made::{Digesting, Made},
    plugin::{Call, CallError, CallReport, ObjectInfo, Plugin},
    registry::Versions,
    retry::Failure,
    store::Store,
};

/// What every call for one use has in common.
pub(super) struct Run<'a, S: Store> {
    pub ctx: &'a Context<S>,
    pub turn: &'a Turn,
    pub event: &'a ObjectEvent,
    pub object: &'a S::Object,
    pub used: &'a Use,
    pub destination: &'a str,
    pub attempt: u32,
    /// Bytes that may be staged.
    pub most: u64,
}

/// A call that has ended.
pub(super) struct Ran<S: Store> {
    pub plugin: Arc<Plugin>,
    pub staging: S::Staging,
    pub report: CallReport,
    /// For a shadow, once it is known where the object is then.
    pub seen: Option<Seen>,
    took: Duration,
}

impl<S: Store> Ran<S> {
    /// How long it took, if it worked.
    fn worked(&self) -> Option<Duration> {
        self.report.result.is_ok().then_some(self.took)
    }

    /// Whether it says anything about the plugin.
    fn counts(&self) -> bool {
        !matches!(self.report.result, Err(CallError::Io(_)))
    }
}

impl<S: Store> Run<'_, S> {
    /// Calls the version that takes the object. A canary costs no object: where it fails, it is the stable
    /// version's turn at once.
    pub async fn through(&self, versions: &Versions) -> Result<Ran<S>, Failure> {
        let meta = self.ctx.store.meta(self.object);
        let Some(trial) = versions.trial.as_ref().filter(|trial| trial.takes(&meta.key, &meta.etag)) else {
            let ran = self.watched(versions).await?;
            if let Some(trial) = versions.trial.as_ref().filter(|_| ran.counts()) {
                trial.stable(ran.worked());
            }
            return Ok(ran);
        };
        let tried = self.call(&trial.canary, None).await?;
        if let Some(took) = tried.worked() {
            trial.canary_worked(took);
        }
        if tried.worked().is_some() || !tried.counts() {
            return Ok(tried);
        }
        let error = tried.report.result.err().map(|error| error.to_string());
        // What it had staged takes room that the next one may need.
        drop(tried.staging);
        let ran = self.call(&versions.stable, None).await?;
        if ran.counts() {
            trial.canary_failed(ran.worked().is_some());
        }
        let (plugin, canary) = (&self.used.plugin, trial.canary.digest.short());
        tracing::warn!(plugin, canary, key = meta.key, error, "canary failed, the stable version took the object");
        Ok(ran)
    }

    /// The stable version, with what a shadow is to be held against. It is left out while objects wait.
    async fn watched(&self, versions: &Versions) -> Result<Ran<S>, Failure> {
        let Some(shadow) = &versions.shadow else { return self.call(&versions.stable, None).await };
        let place = if self.turn.is_waited_for() { None } else { self.ctx.shadows.place() };
        let Some(place) = place else {
            shadow.missed();
            return self.call(&versions.stable, None).await;
        };
        let digests = Digesting::default();
        let mut ran = self.call(&versions.stable, Some(&digests)).await?;
        ran.seen = Made::of(&ran.report, &digests).map(|made| Seen {
            shadow: Arc::clone(shadow),
            place,
            made,
            took: ran.took,
            object: self.told(),
            destination: self.destination.to_owned(),
            settings: Arc::clone(&self.used.settings),
            limits: self.used.limits,
        });
        Ok(ran)
    }

    fn told(&self) -> ObjectInfo {
        let (ctx, event_time) = (self.ctx, self.event.event_time.as_deref());
        object_info(&ctx.bucket, event_time, ctx.store.meta(self.object), self.attempt)
    }

    async fn call(&self, plugin: &Arc<Plugin>, digests: Option<&Digesting>) -> Result<Ran<S>, Failure> {
        let Self { ctx, turn, object, used, destination, most, .. } = *self;
        let plugin = Arc::clone(plugin);
        let meta = ctx.store.meta(object);
        let staging = ctx.store.staging(&provenance(meta, vec![plugin.version()]));
        let call = Call {
            object: self.told(),
            body: ctx.store.body(object),
            outputs: match digests {
                Some(digests) => Arc::new(digests.on_to(staging.clone())),
                None => Arc::new(staging.clone()),
            },
            destination: destination.to_owned(),
            settings: Arc::clone(&used.settings),
            limits: Limits { output_bytes: used.limits.output_bytes.min(most), ..used.limits },
        };
        let started = Instant::now();
        let (guest, hold) = (Arc::clone(&plugin), turn.hold(&used.plugin));
        let call = async move {
            let _hold = hold;
            guest.call(call).await
        };
        let report = ctx.lanes.run(&used.plugin, call).await.map_err(|error| host_panic(&plugin, &error))?;
        Ok(Ran { plugin, staging, report, seen: None, took: started.elapsed() })
    }
}
