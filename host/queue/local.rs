//! A SQLite table as the queue, with SQS's rules: visibility timeouts, receive counts, receipts that go
//! stale, a dead-letter queue.
//!
//! A message stands for one version of one file: while its (key, entity tag) is in the queue or on the
//! dead-letter queue, or was purged from that, sending it again does nothing. So whoever sends may see a file
//! as often as it likes.
//!
//! What is sent, acknowledged and dead-lettered survives a power cut. Who has received what is kept only as
//! long as the system runs, as every start releases it: after a power cut a receive count may be too low.
//!
//! Times are wall-clock times, as they have to outlive the process. When the system's clock is set back,
//! invisible messages stay so for that much longer; a restart makes them visible at once.

mod dead;

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

pub use self::dead::LocalDeadLetters;

use super::{DeadLetter, DeadMessage, Message, Queue, QueueError, Receipt};
use crate::sqlite::{Database, Keep, OpenError, Unavailable};

const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE messages (
        id            INTEGER PRIMARY KEY AUTOINCREMENT,
        key           TEXT NOT NULL,
        etag          TEXT NOT NULL,
        body          BLOB NOT NULL,
        receive_count INTEGER NOT NULL DEFAULT 0,
        excused       INTEGER NOT NULL DEFAULT 0, -- of these, for how many the object is not to blame
        sent          INTEGER NOT NULL, -- times in milliseconds since 1970
        visible       INTEGER NOT NULL,
        UNIQUE (key, etag)
    ) STRICT;
    CREATE INDEX messages_by_visibility ON messages (visible, id);

    CREATE TABLE dead_letters (
        id            INTEGER PRIMARY KEY, -- as it was in messages
        key           TEXT NOT NULL,
        etag          TEXT NOT NULL,
        body          BLOB NOT NULL,
        reason        TEXT NOT NULL,
        class         TEXT NOT NULL,
        plugin        TEXT,
        digest        TEXT,
        attempts      INTEGER NOT NULL,
        letter_key    TEXT,
        backtrace     TEXT,
        died          INTEGER NOT NULL,
        UNIQUE (key, etag)
    ) STRICT;
",
    "
    -- What somebody deleted from the dead letters, so that it is not sent again.
    CREATE TABLE purged (
        key           TEXT NOT NULL,
        etag          TEXT NOT NULL,
        PRIMARY KEY (key, etag)
    ) STRICT, WITHOUT ROWID;
",
];

/// How long a receive waits for a message. Every change wakes it, so this bounds only what a clock that was
/// set forward can hide, and how long a host that is told to stop waits for its last receive.
const LONG_POLL: Duration = Duration::from_millis(100);

/// The wall clock. Tests set their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The system's.
    pub fn system() -> Self {
        Self::from_fn(SystemTime::now)
    }

    /// Any other.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    fn milliseconds(&self) -> i64 {
        milliseconds((self.0)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// The file's key.
    pub key: String,
    /// The file's identity.
    pub etag: String,
    /// The event.
    pub body: Bytes,
}

/// A queue in a file.
#[derive(Debug)]
pub struct LocalQueue {
    database: Database,
    visibility_timeout: Duration,
    clock: Clock,
    /// Whenever a message may have become visible.
    changed: Notify,
}

impl LocalQueue {
    /// Opens or creates the queue. Blocks.
    pub fn open(path: &Path, visibility_timeout: Duration, clock: Clock) -> Result<Self, OpenError> {
        let database = Database::open(path, MIGRATIONS)?;
        Ok(Self { database, visibility_timeout, clock, changed: Notify::new() })
    }

    /// Makes every message visible: to be called at the start by the one who holds the directory's lock,
    /// since whoever received them is dead. Messages that were backing off come along, as a restart is as
    /// good a reason to try again as any. They queue up behind the others, so that one that brought the host
    /// down is not the first again. Answers how many.
    pub async fn release_all(&self) -> Result<usize, QueueError> {
        let now = self.clock.milliseconds();
        let released = self
            .database
            .write(Keep::WhileRunning, move |connection| {
                connection.execute("UPDATE messages SET visible = ?1 WHERE visible > ?1 OR receive_count > 0", [now])
            })
            .await?;
        self.changed.notify_waiters();
        Ok(released)
    }

    /// Sends messages, each unless it is known already. Those of earlier versions of the same key leave the
    /// dead-letter queue, since what they were about no longer exists. Answers how many were new.
    pub async fn enqueue(&self, messages: Vec<NewMessage>) -> Result<usize, QueueError> {
        let now = self.clock.milliseconds();
        let new =
            self.database.write(Keep::Forever, move |connection| insert(connection, &messages, now, |_| true)).await?;
        self.woken(new)
    }

    /// The same from a thread of the caller's own, leaving out those that are no longer `current`. That is
    /// asked at the moment of sending, in order with the acknowledgements: a file is moved before its message
    /// is acknowledged, so one that is still there has not been done meanwhile.
    pub(super) fn enqueue_blocking(
        &self,
        messages: Arc<Vec<NewMessage>>,
        current: impl Fn(&NewMessage) -> bool + Send + 'static,
    ) -> Result<usize, QueueError> {
        let now = self.clock.milliseconds();
        let new = self
            .database
            .write_blocking(Keep::Forever, move |connection| insert(connection, &messages, now, current))?;
        self.woken(new)
    }

    /// Messages in the queue, visible or not; dead letters don't count.
    pub async fn live(&self) -> Result<usize, QueueError> {
        let count = |connection: &Connection| {
            connection.prepare_cached("SELECT count(*) FROM messages")?.query_row([], |row| row.get::<_, i64>(0))
        };
        Ok(usize::try_from(self.database.write(Keep::WhileRunning, count).await?).unwrap_or_default())
    }

    /// The first `limit` messages on the dead-letter queue, in the order in which they were sent.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadMessage>, QueueError> {
        let select = move |connection: &Connection| {
            connection
                .prepare_cached("SELECT * FROM dead_letters ORDER BY id LIMIT ?")?
                .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], dead_message)?
                .collect()
        };
        Ok(self.database.write(Keep::WhileRunning, select).await?)
    }

    fn woken(&self, new: usize) -> Result<usize, QueueError> {
        if new > 0 {
            self.changed.notify_waiters();
        }
        Ok(new)
    }

    /// What is visible now; if nothing is, when the next message will be.
    async fn take(&self, max: usize) -> Result<(Vec<Message>, Option<Duration>), QueueError> {
        let now = self.clock.milliseconds();
        let until = now.saturating_add(milliseconds(self.visibility_timeout));
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let taken = self
            .database
            .write(Keep::WhileRunning, move |connection| {
                let mut messages: Vec<Message> = connection
                    .prepare_cached(
                        "UPDATE messages SET visible = ?2, receive_count = receive_count + 1
                         WHERE id IN (SELECT id FROM messages WHERE visible <= ?1 ORDER BY visible, id LIMIT ?3)
                         RETURNING id, receive_count, body, receive_count - excused",
                    )?
                    .query_map([now, until, limit], message)?
                    .collect::<Result<_, _>>()?;
                // The order of RETURNING is not specified.
                messages.sort_by_key(|message| message.id.parse::<i64>().unwrap_or(i64::MAX));
                let next: Option<i64> = match messages.is_empty() {
                    true => connection
                        .prepare_cached("SELECT min(visible) FROM messages")?
                        .query_row([], |row| row.get(0))?,
                    false => None,
                };
                Ok((messages, next))
            })
            .await?;
        let (messages, next) = taken;
        Ok((messages, next.map(|next| from_milliseconds(next.saturating_sub(now)))))
    }

    /// Runs a statement on the message that a receipt names.
    async fn with_receipt(
        &self,
        receipt: &Receipt,
        keep: Keep,
        work: impl FnOnce(&Connection, i64, i64) -> rusqlite::Result<usize> + Send + 'static,
    ) -> Result<(), QueueError> {
        let (id, receive_count) = parse(receipt).ok_or(QueueError::Stale)?;
        match self.database.write(keep, move |connection| work(connection, id, receive_count)).await? {
            0 => Err(QueueError::Stale),
            _ => Ok(()),
        }
    }
}

impl Queue for LocalQueue {
    async fn receive(&self, max: usize) -> Result<Vec<Message>, QueueError> {
        let deadline = Instant::now() + LONG_POLL;
        loop {
            // From here on no change is missed, though it come before the wait.
            let changed = self.changed.notified();
            let (messages, next) = self.take(max).await?;
            if !messages.is_empty() || max == 0 {
                return Ok(messages);
            }
            let wait = next.map_or(deadline, |next| deadline.min(Instant::now() + next));
            // Woken or not, the look at the queue decides.
            let _ = timeout_at(wait, changed).await;
            if Instant::now() >= deadline {
                return Ok(Vec::new());
            }
        }
    }

    async fn acknowledge(&self, receipt: &Receipt) -> Result<(), QueueError> {
        self.with_receipt(receipt, Keep::Forever, delete).await
    }

    async fn set_visibility(&self, receipt: &Receipt, after: Duration) -> Result<(), QueueError> {
        let visible = self.clock.milliseconds().saturating_add(milliseconds(after));
        self.with_receipt(receipt, Keep::WhileRunning, move |connection, id, receive_count| {
            connection
                .prepare_cached("UPDATE messages SET visible = ?3 WHERE id = ?1 AND receive_count = ?2")?
                .execute([id, receive_count, visible])
        })
        .await?;
        self.changed.notify_waiters();
        Ok(())
    }

    async fn excuse(&self, message: &Message, after: Duration) -> Result<bool, QueueError> {
        let visible = self.clock.milliseconds().saturating_add(milliseconds(after));
        self.with_receipt(&message.receipt, Keep::Forever, move |connection, id, receive_count| {
            connection
                .prepare_cached(
                    "UPDATE messages SET visible = ?3, excused = excused + 1 WHERE id = ?1 AND receive_count = ?2",
                )?
                .execute([id, receive_count, visible])
        })
        .await?;
        self.changed.notify_waiters();
        Ok(true)
    }

    async fn dead_letter(&self, message: &Message, letter: &DeadLetter) -> Result<(), QueueError> {
        let (letter, now) = (letter.clone(), self.clock.milliseconds());
        self.with_receipt(&message.receipt, Keep::Forever, move |connection, id, receive_count| {
            let (plugin, digest) = letter.plugin.unzip();
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO dead_letters
                     SELECT id, key, etag, body, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10
                     FROM messages WHERE id = ?1 AND receive_count = ?2",
                )?
                .execute(params![
                    id,
                    receive_count,
                    letter.reason,
                    letter.class,
                    plugin,
                    digest,
                    letter.attempts,
                    letter.key,
                    letter.backtrace,
                    now,
                ])?;
            delete(connection, id, receive_count)
        })
        .await
    }

    fn visibility_timeout(&self) -> Duration {
        self.visibility_timeout
    }
}

fn insert(
    connection: &Connection,
    messages: &[NewMessage],
    now: i64,
    current: impl Fn(&NewMessage) -> bool,
) -> rusqlite::Result<usize> {
    let mut known = connection.prepare_cached(
        "SELECT 1 FROM messages WHERE key = ?1 AND etag = ?2
         UNION ALL SELECT 1 FROM dead_letters WHERE key = ?1 AND etag = ?2
         UNION ALL SELECT 1 FROM purged WHERE key = ?1 AND etag = ?2",
    )?;
    let mut forget = connection.prepare_cached("DELETE FROM dead_letters WHERE key = ?")?;
    let mut forget_purged = connection.prepare_cached("DELETE FROM purged WHERE key = ?")?;
    let mut send = connection
        .prepare_cached("INSERT INTO messages (key, etag, body, sent, visible) VALUES (?1, ?2, ?3, ?4, ?4)")?;
    let mut new = 0;
    for message in messages {
        let NewMessage { key, etag, body } = message;
        if known.query_row([key, etag], |_| Ok(())).optional()?.is_none() && current(message) {
            forget.execute([key])?;
            forget_purged.execute([key])?;
            new += send.execute(params![key, etag, &body[..], now])?;
        }
    }
    Ok(new)
}

fn delete(connection: &Connection, id: i64, receive_count: i64) -> rusqlite::Result<usize> {
    connection.prepare_cached("DELETE FROM messages WHERE id = ? AND receive_count = ?")?.execute([id, receive_count])
}

fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    let (id, receive_count): (i64, i64) = (row.get(0)?, row.get(1)?);
    let body: Vec<u8> = row.get(2)?;
    Ok(Message {
        id: id.to_string(),
        receipt: Receipt(format!("{id}.{receive_count}")),
        body: body.into(),
        receive_count: row.get(3)?,
    })
}

/// What [`message`] wrote: an id is never given twice, and the count changes with every delivery.
fn parse(receipt: &Receipt) -> Option<(i64, i64)> {
    let (id, receive_count) = receipt.0.split_once('.')?;
    Some((id.parse().ok()?, receive_count.parse().ok()?))
}

fn dead_message(row: &Row<'_>) -> rusqlite::Result<DeadMessage> {
    let (plugin, digest): (Option<String>, Option<String>) = (row.get("plugin")?, row.get("digest")?);
    Ok(DeadMessage {
        id: row.get::<_, i64>("id")?.to_string(),
        receipt: Receipt(row.get::<_, i64>("id")?.to_string()),
        body: row.get::<_, Vec<u8>>("body")?.into(),
        letter: DeadLetter {
            reason: row.get("reason")?,
            class: row.get("class")?,
            plugin: plugin.zip(digest),
            attempts: row.get("attempts")?,
            key: row.get("letter_key")?,
            backtrace: row.get("backtrace")?,
        },
        died: SystemTime::UNIX_EPOCH + from_milliseconds(row.get("died")?),
    })
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn from_milliseconds(milliseconds: i64) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or_default())
}

impl From<Unavailable> for QueueError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error.0)
    }
}
