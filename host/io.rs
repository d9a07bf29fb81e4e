//! Byte sources and sinks: what a store provides and a plugin is handed.
//!
//! The two sides meet only here, so the plugin engine knows no store and a store knows no engine.

use std::{future::Future, pin::Pin};

use bytes::Bytes;

/// A future that can be kept in a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why bytes could not be read or staged. Never the plugin's fault.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IoError {
    /// The object is no longer the one that was pinned: overwritten or deleted.
    #[error("the object was overwritten or deleted while it was read")]
    Superseded,
    /// This one object may not be read; the text says why.
    #[error("{0}")]
    Denied(String),
    /// The store cannot serve it now (network, throttling, disk full); the text says what happened.
    #[error("{0}")]
    Unavailable(String),
}

/// The pinned bytes of one object, read lazily.
pub trait Body: Send {
    /// The next 1 to `max` bytes in order; empty at the end and ever after. `max` is at least 1.
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Bytes, IoError>>;

    /// Up to `len` bytes from `offset`, shorter only at the end of the object.
    /// Does not move the position of [`Body::read`].
    fn read_at(&mut self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, IoError>>;
}

/// How an output is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputMeta {
    /// The whole key.
    pub key: String,
    /// MIME type.
    pub content_type: String,
    /// User metadata, keys in lower case.
    pub metadata: Vec<(String, String)>,
}

/// Where one call of a plugin stages its outputs. Nothing becomes visible through it.
pub trait Outputs: Send + Sync {
    /// Adds an empty output. They are numbered in this order, from 0.
    fn create(&self, meta: OutputMeta);

    /// Appends to the output number `index`.
    fn write(&self, index: usize, bytes: Bytes) -> BoxFuture<'_, Result<(), IoError>>;
}
