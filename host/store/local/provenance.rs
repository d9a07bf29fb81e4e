//! Where files came from: a database beside the bucket.
//!
//! Extended attributes would travel with a file, but they need write permission on files that other users
//! dropped or that are read-only, and a file system that has them. Here a row counts only while the file at
//! its key has the identity that the row names: a file that somebody else put there has none, and a row
//! without its file (its host died before the rename) says nothing.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    sqlite::{Database, Keep, OpenError, Unavailable},
    store::Provenance,
};

const MIGRATIONS: &[&str] = &["
    CREATE TABLE provenance (
        key          TEXT NOT NULL,
        etag         TEXT NOT NULL,
        provenance   TEXT NOT NULL, -- JSON
        content_type TEXT,
        metadata     TEXT NOT NULL, -- JSON
        recorded     INTEGER NOT NULL, -- milliseconds since 1970
        PRIMARY KEY (key, etag)
    ) STRICT, WITHOUT ROWID;
"];

/// A row of another identity under the same key belongs to a file that is no longer there, or to a write
/// that is not there yet. No write takes an hour from its row to its rename.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// What is known of a file that this host put somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) provenance: Provenance,
    pub(super) content_type: Option<String>,
    pub(super) metadata: Vec<(String, String)>,
}

#[derive(Debug)]
pub(super) struct Records(Database);

impl Records {
    /// Blocks.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        Database::open(path, MIGRATIONS).map(Self)
    }

    /// Keeps the record for the file `etag` that is about to appear at `key`, while `current` is there.
    pub(super) async fn keep(
        &self,
        key: &str,
        etag: &str,
        current: Option<&str>,
        record: &Record,
    ) -> Result<(), Unavailable> {
        let (key, etag, current) = (key.to_owned(), etag.to_owned(), current.map(str::to_owned));
        let (provenance, metadata) = (json(&record.provenance)?, json(&record.metadata)?);
        let content_type = record.content_type.clone();
        self.0
            .write(Keep::Forever, move |connection| {
                let now = milliseconds(SystemTime::now());
                // Only when it is known what is there: its record must stay.
                if let Some(current) = current {
                    connection
                        .prepare_cached(
                            "DELETE FROM provenance WHERE key = ?1 AND recorded < ?2 AND etag NOT IN (?3, ?4)",
                        )?
                        .execute(params![key, now - milliseconds_of(STALE_AFTER), etag, current])?;
                }
                connection
                    .prepare_cached("INSERT OR REPLACE INTO provenance VALUES (?, ?, ?, ?, ?, ?)")?
                    .execute(params![key, etag, provenance, content_type, metadata, now])?;
                Ok(())
            })
            .await
    }

    /// The record of the file `etag` at `key`. Blocks for a query.
    pub(super) fn find(&self, key: &str, etag: &str) -> Result<Option<Record>, Unavailable> {
        let row = self.0.read(|connection: &Connection| {
            connection
                .prepare_cached("SELECT provenance, content_type, metadata FROM provenance WHERE key = ? AND etag = ?")?
                .query_row([key, etag], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, String>(2)?)))
                .optional()
        })?;
        let Some((provenance, content_type, metadata)) = row else { return Ok(None) };
        let unreadable =
            |error| Unavailable(format!("the provenance of `{key}` is unreadable ({error}): restore `provenance.db`"));
        Ok(Some(Record {
            provenance: serde_json::from_str(&provenance).map_err(unreadable)?,
            content_type,
            metadata: serde_json::from_str(&metadata).map_err(unreadable)?,
        }))
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, Unavailable> {
    serde_json::to_string(value).map_err(|error| Unavailable(format!("cannot record where a file came from: {error}")))
}

fn milliseconds(time: SystemTime) -> i64 {
    milliseconds_of(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn milliseconds_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
