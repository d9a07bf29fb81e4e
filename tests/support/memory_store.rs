//! A bucket in memory: entity tags that change with every write, conditional writes, provenance, a copy and
//! a delete for a move.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use bytes::Bytes;
use gristmill::{
    io::{Body, BoxFuture, IoError, Outputs},
    key::guess_content_type,
    store::{Existing, Expect, ObjectMeta, OutputMeta, Provenance, Store, StoreError},
};

use super::faults::{Faults, NoFaults, When, pass};

/// Clones share the bucket.
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    faults: Arc<dyn Faults>,
}

#[derive(Default)]
struct State {
    next_etag: u64,
    objects: BTreeMap<String, Stored>,
}

/// An object.
#[derive(Debug, Clone)]
pub struct Stored {
    pub etag: String,
    pub body: Bytes,
    pub content_type: Option<String>,
    pub metadata: Vec<(String, String)>,
    pub provenance: Option<Provenance>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::with_faults(Arc::new(NoFaults))
    }

    pub fn with_faults(faults: Arc<dyn Faults>) -> Self {
        Self { state: Arc::default(), faults }
    }

    /// The same bucket, as somebody sees it to whom other things happen.
    pub fn under(&self, faults: Arc<dyn Faults>) -> Self {
        Self { faults, ..self.clone() }
    }

    /// What a user does. Answers the entity tag.
    pub fn put(&self, key: &str, body: impl Into<Bytes>) -> String {
        let content_type = guess_content_type(key).map(str::to_owned);
        let stored =
            Stored { etag: String::new(), body: body.into(), content_type, metadata: Vec::new(), provenance: None };
        self.state.lock().unwrap().put(key, stored)
    }

    /// What a user does.
    pub fn remove(&self, key: &str) {
        self.state.lock().unwrap().objects.remove(key);
    }

    /// Everything, for an auditor.
    pub fn objects(&self) -> BTreeMap<String, Stored> {
        self.state.lock().unwrap().objects.clone()
    }

    async fn pass(&self, call: &'static str, when: When, key: &str) -> Result<(), StoreError> {
        pass(&*self.faults, call, when, key).await.map_err(StoreError::Unavailable)
    }
}

impl State {
    fn put(&mut self, key: &str, stored: Stored) -> String {
        self.next_etag += 1;
        let etag = format!("{:032x}", self.next_etag);
        self.objects.insert(key.to_owned(), Stored { etag: etag.clone(), ..stored });
        etag
    }

    fn expect(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        let there = self.objects.get(key).map(|stored| &stored.etag);
        match (expect, there) {
            (Expect::Absent, None) => Ok(()),
            (Expect::Etag(etag), Some(there)) if etag == there => Ok(()),
            _ => Err(StoreError::Exists(key.to_owned())),
        }
    }

    fn pinned(&self, object: &ObjectMeta) -> Result<&Stored, StoreError> {
        match self.objects.get(&object.key) {
            None => Err(StoreError::NotFound(object.key.clone())),
            Some(stored) if stored.etag == object.etag => Ok(stored),
            Some(_) => Err(StoreError::Superseded),
        }
    }
}

impl Store for MemoryStore {
    type Object = ObjectMeta;
    type Staging = MemoryStaging;

    async fn open(&self, key: &str) -> Result<ObjectMeta, StoreError> {
        self.pass("open", When::Before, key).await?;
        let meta = {
            let state = self.state.lock().unwrap();
            let stored = state.objects.get(key).ok_or_else(|| StoreError::NotFound(key.to_owned()))?;
            ObjectMeta {
                key: key.to_owned(),
                size: stored.body.len() as u64,
                etag: stored.etag.clone(),
                version_id: None,
                content_type: stored.content_type.clone(),
                metadata: stored.metadata.clone(),
                modified: Some(SystemTime::UNIX_EPOCH),
            }
        };
        self.pass("open", When::After, key).await?;
        Ok(meta)
    }

    fn meta<'a>(&self, object: &'a ObjectMeta) -> &'a ObjectMeta {
        object
    }

    fn body(&self, object: &ObjectMeta) -> Box<dyn Body> {
        Box::new(MemoryBody { store: self.clone(), object: object.clone(), position: 0 })
    }

    fn staging(&self, provenance: &Provenance) -> MemoryStaging {
        MemoryStaging { outputs: Arc::default(), provenance: provenance.clone(), faults: Arc::clone(&self.faults) }
    }

    async fn verify(&self, object: &ObjectMeta) -> Result<(), StoreError> {
        self.pass("verify", When::Before, &object.key).await?;
        let outcome = self.state.lock().unwrap().pinned(object).map(|_| ());
        self.pass("verify", When::After, &object.key).await?;
        outcome.map_err(|_| StoreError::Superseded)
    }

    async fn publish(&self, staging: &MemoryStaging, index: usize, expect: &Expect) -> Result<(), StoreError> {
        let meta = staging.meta(index)?;
        self.pass("publish", When::Before, &meta.key).await?;
        {
            let mut state = self.state.lock().unwrap();
            state.expect(&meta.key, expect)?;
            let Some(body) = staging.take(index) else {
                return Err(StoreError::Impossible(format!("output number {index} was published already")));
            };
            let stored = Stored {
                etag: String::new(),
                body,
                content_type: Some(meta.content_type.clone()),
                metadata: meta.metadata.clone(),
                provenance: Some(staging.provenance.clone()),
            };
            state.put(&meta.key, stored);
        }
        self.pass("publish", When::After, &meta.key).await
    }

    async fn relocate(
        &self,
        object: &ObjectMeta,
        to: &str,
        provenance: &Provenance,
        expect: &Expect,
    ) -> Result<(), StoreError> {
        self.pass("relocate", When::Before, &object.key).await?;
        {
            let mut state = self.state.lock().unwrap();
            let copy = Stored { provenance: Some(provenance.clone()), ..state.pinned(object)?.clone() };
            state.expect(to, expect)?;
            state.objects.insert(to.to_owned(), copy);
        }
        self.pass("relocate", When::Amid, &object.key).await?;
        {
            // The copy was of the pinned object. A newer one that came since has an event of its own.
            let mut state = self.state.lock().unwrap();
            if state.pinned(object).is_ok() {
                state.objects.remove(&object.key);
            }
        }
        self.pass("relocate", When::After, &object.key).await
    }

    async fn inspect(&self, key: &str) -> Result<Option<Existing>, StoreError> {
        self.pass("inspect", When::Before, key).await?;
        let found = self
            .state
            .lock()
            .unwrap()
            .objects
            .get(key)
            .map(|stored| Existing { etag: stored.etag.clone(), provenance: stored.provenance.clone() });
        self.pass("inspect", When::After, key).await?;
        Ok(found)
    }
}

struct MemoryBody {
    store: MemoryStore,
    object: ObjectMeta,
    position: usize,
}

impl MemoryBody {
    async fn range(&self, offset: usize, len: usize) -> Result<Bytes, IoError> {
        let unavailable = IoError::Unavailable;
        pass(&*self.store.faults, "read", When::Before, &self.object.key).await.map_err(unavailable)?;
        let body = {
            let state = self.store.state.lock().unwrap();
            state.pinned(&self.object).map_err(|_| IoError::Superseded)?.body.clone()
        };
        let start = offset.min(body.len());
        Ok(body.slice(start..start.saturating_add(len).min(body.len())))
    }
}

impl Body for MemoryBody {
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Bytes, IoError>> {
        Box::pin(async move {
            let bytes = self.range(self.position, max).await?;
            self.position += bytes.len();
            Ok(bytes)
        })
    }

    fn read_at(&mut self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, IoError>> {
        Box::pin(async move { self.range(usize::try_from(offset).unwrap_or(usize::MAX), len).await })
    }
}

/// An output, without content once it was published.
type Staged = (OutputMeta, Option<Vec<u8>>);

/// Outputs in memory.
#[derive(Clone)]
pub struct MemoryStaging {
    outputs: Arc<Mutex<Vec<Staged>>>,
    provenance: Provenance,
    faults: Arc<dyn Faults>,
}

impl MemoryStaging {
    fn meta(&self, index: usize) -> Result<OutputMeta, StoreError> {
        let never = || StoreError::Impossible(format!("output number {index} was never created"));
        self.outputs.lock().unwrap().get(index).map(|(meta, _)| meta.clone()).ok_or_else(never)
    }

    fn take(&self, index: usize) -> Option<Bytes> {
        self.outputs.lock().unwrap()[index].1.take().map(Bytes::from)
    }
}

impl Outputs for MemoryStaging {
    fn create(&self, meta: OutputMeta) {
        self.outputs.lock().unwrap().push((meta, Some(Vec::new())));
    }

    fn write(&self, index: usize, bytes: Bytes) -> BoxFuture<'_, Result<(), IoError>> {
        Box::pin(async move {
            pass(&*self.faults, "write", When::Before, &index.to_string()).await.map_err(IoError::Unavailable)?;
            match self.outputs.lock().unwrap().get_mut(index) {
                Some((_, Some(output))) => output.extend_from_slice(&bytes),
                _ => return Err(IoError::Unavailable(format!("output number {index} was published already"))),
            }
            Ok(())
        })
    }
}
