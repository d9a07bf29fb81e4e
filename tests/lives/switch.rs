//! A crash before or after one chosen call, over any queue and any store.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use gristmill::{
    io::Body,
    queue::{DeadLetter, Message, Queue, QueueError, Receipt},
    store::{Existing, Expect, ObjectMeta, Provenance, Store, StoreError},
};
use tokio_util::sync::CancellationToken;

use crate::support::faults::When;

/// Counts the calls of one host, and kills it at one of them.
pub struct Switch {
    point: Option<(usize, When)>,
    /// The calls so far, in order.
    pub calls: Mutex<Vec<&'static str>>,
    pub crashed: CancellationToken,
}

impl Switch {
    pub fn new(point: Option<(usize, When)>) -> Arc<Self> {
        Arc::new(Self { point, calls: Mutex::default(), crashed: CancellationToken::new() })
    }

    async fn around<T>(&self, call: &'static str, effect: impl Future<Output = T>) -> T {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(call);
            calls.len() - 1
        };
        self.crash_at(number, When::Before).await;
        let value = effect.await;
        self.crash_at(number, When::After).await;
        value
    }

    async fn crash_at(&self, number: usize, when: When) {
        if self.point == Some((number, when)) {
            self.crashed.cancel();
            match std::future::pending::<Infallible>().await {}
        }
    }
}

/// A queue or a store whose calls go through a switch.
pub struct Crashing<T> {
    pub inner: Arc<T>,
    pub switch: Arc<Switch>,
}

impl<Q: Queue> Queue for Crashing<Q> {
    async fn receive(&self, max: usize) -> Result<Vec<Message>, QueueError> {
        self.switch.around("receive", self.inner.receive(max)).await
    }

    async fn acknowledge(&self, receipt: &Receipt) -> Result<(), QueueError> {
        self.switch.around("acknowledge", self.inner.acknowledge(receipt)).await
    }

    async fn set_visibility(&self, receipt: &Receipt, after: Duration) -> Result<(), QueueError> {
        self.switch.around("set_visibility", self.inner.set_visibility(receipt, after)).await
    }

    async fn dead_letter(&self, message: &Message, letter: &DeadLetter) -> Result<(), QueueError> {
        self.switch.around("dead_letter", self.inner.dead_letter(message, letter)).await
    }

    fn visibility_timeout(&self) -> Duration {
        self.inner.visibility_timeout()
    }
}

impl<S: Store> Store for Crashing<S> {
    type Object = S::Object;
    type Staging = S::Staging;

    async fn open(&self, key: &str) -> Result<S::Object, StoreError> {
        self.switch.around("open", self.inner.open(key)).await
    }

    fn meta<'a>(&self, object: &'a S::Object) -> &'a ObjectMeta {
        self.inner.meta(object)
    }

    fn body(&self, object: &S::Object) -> Box<dyn Body> {
        self.inner.body(object)
    }

    fn staging(&self, provenance: &Provenance) -> S::Staging {
        self.inner.staging(provenance)
    }

    async fn verify(&self, object: &S::Object) -> Result<(), StoreError> {
        self.switch.around("verify", self.inner.verify(object)).await
    }

    async fn publish(&self, staging: &S::Staging, index: usize, expect: &Expect) -> Result<(), StoreError> {
        self.switch.around("publish", self.inner.publish(staging, index, expect)).await
    }

    async fn relocate(
        &self,
        object: &S::Object,
        to: &str,
        provenance: &Provenance,
        expect: &Expect,
    ) -> Result<(), StoreError> {
        self.switch.around("relocate", self.inner.relocate(object, to, provenance, expect)).await
    }

    async fn inspect(&self, key: &str) -> Result<Option<Existing>, StoreError> {
        self.switch.around("inspect", self.inner.inspect(key)).await
    }
}
