//! Which plugins there are: an immutable catalog, rebuilt and swapped whenever the directory changes.
//!
//! A job takes one [`Catalog`] and keeps it to its end, so a reload never changes work in flight.

mod catalog;
mod load;
mod watch;

pub use catalog::{Catalog, Entry};
pub use load::{
    FileError, Refusal, RegistryError, built_in_bytes, built_in_names, load_built_in, load_directory, read_plugin_file,
};
pub use watch::Registry;
