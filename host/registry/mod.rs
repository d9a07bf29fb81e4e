//! Which plugins there are: an immutable catalog, rebuilt and swapped whenever the directory changes.
//!
//! A job takes one [`Catalog`] and keeps it to its end, so a reload never changes work in flight.

mod catalog;
mod compiling;
mod file;
mod load;
mod watch;

pub use catalog::{Catalog, Entry};
pub use file::{FileError, read_plugin_file};
pub use load::{Refusal, RegistryError, built_in_bytes, built_in_names, load_built_in, load_directory};
pub use watch::Registry;
