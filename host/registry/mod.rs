//! Which plugins there are: an immutable catalog, rebuilt and swapped whenever the directory changes.
//!
//! A job takes one [`Catalog`] and keeps it to its end, so a reload never changes work in flight.

mod catalog;
mod compiling;
mod file;
mod history;
mod load;
mod releases;
mod shadow;
mod trial;
mod watch;

pub use catalog::{Catalog, Entry, Versions};
pub use file::{FileError, read_named_file};
pub use history::{History, HistoryError};
pub use load::{Refusal, RegistryError, built_in_bytes, built_in_names, load_built_in, load_directory};
pub use releases::{Release, Releases};
pub use shadow::Shadow;
pub use trial::Trial;
pub use watch::Registry;
