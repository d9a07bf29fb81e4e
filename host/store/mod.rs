//! The store seam: objects with pinned identity, conditional writes and provenance.

pub mod local;
pub mod s3;

use std::{future::Future, time::SystemTime};

pub use crate::{
    io::OutputMeta,
    provenance::{PluginVersion, Provenance},
};

use crate::io::{Body, Outputs};

/// An object as it was when it was opened; `etag` and `version_id` are its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The whole key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Opaque, without quotes.
    pub etag: String,
    /// In a bucket with versioning.
    pub version_id: Option<String>,
    /// As stored; guessed from the name where the store keeps none.
    pub content_type: Option<String>,
    /// User metadata, keys in lower case.
    pub metadata: Vec<(String, String)>,
    /// Last modification.
    pub modified: Option<SystemTime>,
}

/// What is stored at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Opaque, without quotes.
    pub etag: String,
    /// Absent when something else than this host put it there.
    pub provenance: Option<Provenance>,
}

/// What a write expects at its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Nothing (If-None-Match: *).
    Absent,
    /// Exactly this entity tag (If-Match).
    Etag(String),
}

/// Why a store did not do as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No object has that key.
    #[error("`{0}` does not exist")]
    NotFound(String),
    /// The source is no longer the pinned one.
    #[error("the object was overwritten or deleted meanwhile")]
    Superseded,
    /// What is stored at the key is not what the write expected.
    #[error("something else is already stored at `{0}`")]
    Exists(String),
    /// This one object may not be read; the text says why and what to do. Others may well be.
    #[error("{0}")]
    Denied(String),
    /// The store can never do this; the text says why (a name too long for the file system).
    #[error("{0}")]
    Impossible(String),
    /// The store cannot do it now; the text says why (network, throttling, disk full).
    #[error("{0}")]
    Unavailable(String),
}

/// A bucket.
///
/// Every call ends, whatever the other side does, so that a drain cannot hang on one. In S3 a request and all
/// its tries end within 30 seconds; one that carries bytes has a second more for each 64 KiB and try; the copy or
/// the completion of an object has 20 minutes. A read that gets no byte for 20 seconds is begun again, at most
/// 8 times for a mebibyte.
pub trait Store: Send + Sync + 'static {
    /// An object pinned at the identity it had when it was opened.
    type Object: Send + Sync + 'static;
    /// Staged outputs of one call. Clones share them; when the last clone is dropped, what was not
    /// published is thrown away.
    type Staging: Outputs + Clone + 'static;

    /// Whether every version of an object is told of by an event of its own, so that an event of another
    /// version than the one found is out of date. In S3 two writes may come as one event.
    const EVERY_VERSION_HAS_AN_EVENT: bool = false;

    /// Looks the object up and pins its identity; reads nothing of its body.
    fn open(&self, key: &str) -> impl Future<Output = Result<Self::Object, StoreError>> + Send;

    /// What [`Store::open`] saw.
    fn meta<'a>(&self, object: &'a Self::Object) -> &'a ObjectMeta;

    /// The pinned bytes. A read of anything else is [`crate::io::IoError::Superseded`].
    fn body(&self, object: &Self::Object) -> Box<dyn Body>;

    /// An empty staging area for what is made as `provenance` says.
    fn staging(&self, provenance: &Provenance) -> Self::Staging;

    /// Bytes that may still be staged. A plugin that wants all of it is stopped at a part, by its own limit,
    /// before what everybody needs is used up.
    fn room(&self) -> impl Future<Output = u64> + Send {
        std::future::ready(u64::MAX)
    }

    /// Whether the key still holds the pinned object: [`StoreError::Superseded`] when not.
    fn verify(&self, object: &Self::Object) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Makes output number `index` of `staging` visible at its key, whole and durable, if `expect` holds
    /// there: [`StoreError::Exists`] when not, and then it can be called again.
    fn publish(
        &self,
        staging: &Self::Staging,
        index: usize,
        expect: &Expect,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Moves the pinned object to the key `to`, durably, if `expect` holds there and the source is still
    /// the pinned one. [`StoreError::Superseded`] leaves the newer source where it is.
    fn relocate(
        &self,
        object: &Self::Object,
        to: &str,
        provenance: &Provenance,
        expect: &Expect,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What is stored at the key, if anything.
    fn inspect(&self, key: &str) -> impl Future<Output = Result<Option<Existing>, StoreError>> + Send;
}
