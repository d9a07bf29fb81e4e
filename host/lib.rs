//! Gristmill runs WebAssembly plugins over the objects that land in a bucket.
//!
//! The map, along the way of one object:
//!
//! - [`queue`] hands out messages and takes them back; [`event`] reads them.
//! - [`worker`] receives and settles, [`admission`] says who may go on; [`job`] is one object from top to
//!   bottom.
//! - [`route`], [`key`], [`retry`] and [`address`] decide, without doing anything; [`circuit`] spares objects a plugin
//!   that fails on most of them.
//! - [`registry`] knows which plugins there are; [`plugin`] runs one in its sandbox, [`lanes`] are the threads
//!   for it; [`release`] says which version takes an object, [`made`] in what two versions differ.
//! - [`signing`] makes and checks the signatures of plugin files.
//! - [`store`] holds the objects; [`io`] is where its bytes meet the plugin's calls,
//!   [`provenance`] what it knows of where they came from.
//! - [`aws`] connects to SQS and S3, and to what speaks like them.
//! - [`config`], [`cli`], [`commands`], [`telemetry`] and [`report`] face people.
//!
//! `tests/architecture.rs` holds which of these may know which.

pub mod address;
pub mod admission;
pub mod aws;
pub mod circuit;
pub mod cli;
pub mod commands;
pub mod config;
pub mod directory;
pub mod event;
pub mod io;
pub mod job;
pub mod key;
pub mod lanes;
pub mod made;
pub mod plugin;
pub mod private;
pub mod provenance;
pub mod queue;
pub mod registry;
pub mod release;
pub mod report;
pub mod retry;
pub mod route;
pub mod signing;
pub mod sqlite;
pub mod store;
pub mod telemetry;
pub mod text;
pub mod worker;
