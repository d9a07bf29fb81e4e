//! The dead letters of local mode, for whoever looks after them. A host may be at work meanwhile.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::{LocalQueue, dead_message};
use crate::{
    queue::{DeadLetters, DeadMessage, QueueError, Receipt},
    sqlite::Keep,
};

/// Dead letters in one look: enough that a long list takes few of them, few enough that a running host waits
/// for none.
const AT_ONCE: i64 = 100;

/// One walk through the dead letters. Looking at them hides them from nobody.
#[derive(Debug)]
pub struct LocalDeadLetters {
    queue: Arc<LocalQueue>,
    /// The last one seen.
    after: i64,
    /// The last one that there was when the walk began. A message gets a new number when it is put back, so
    /// one that dies again is behind this.
    until: Option<i64>,
}

impl LocalDeadLetters {
    /// Begins a walk.
    #[must_use]
    pub fn new(queue: Arc<LocalQueue>) -> Self {
        Self { queue, after: 0, until: None }
    }

    /// Runs statements on the dead letter that a receipt names, all or none of them. The last one takes it
    /// away.
    async fn settle(
        &self,
        message: &DeadMessage,
        work: impl FnOnce(&Connection, i64) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), QueueError> {
        let id = parse(&message.receipt).ok_or(QueueError::Stale)?;
        let settle = move |connection: &Connection| {
            work(connection, id)?;
            connection.prepare_cached("DELETE FROM dead_letters WHERE id = ?")?.execute([id])
        };
        match self.queue.database.write(Keep::Forever, settle).await? {
            0 => Err(QueueError::Stale),
            _ => Ok(()),
        }
    }
}

impl DeadLetters for LocalDeadLetters {
    async fn next(&mut self) -> Result<Vec<DeadMessage>, QueueError> {
        let (after, until) = (self.after, self.until);
        let look = move |connection: &Connection| {
            let until = match until {
                Some(until) => until,
                None => connection
                    .prepare_cached("SELECT coalesce(max(id), 0) FROM dead_letters")?
                    .query_row([], |row| row.get(0))?,
            };
            let messages: Vec<DeadMessage> = connection
                .prepare_cached("SELECT * FROM dead_letters WHERE id > ? AND id <= ? ORDER BY id LIMIT ?")?
                .query_map([after, until, AT_ONCE], dead_message)?
                .collect::<Result<_, _>>()?;
            Ok((messages, until))
        };
        let (messages, until) = self.queue.database.write(Keep::WhileRunning, look).await?;
        self.until = Some(until);
        self.after = messages.last().and_then(|message| parse(&message.receipt)).unwrap_or(until);
        Ok(messages)
    }

    async fn keep(&mut self, _message: &DeadMessage) -> Result<(), QueueError> {
        Ok(())
    }

    /// In one transaction: here a crash leaves it on one of the two.
    async fn redrive(&mut self, message: &DeadMessage) -> Result<(), QueueError> {
        let now = self.queue.clock.milliseconds();
        self.settle(message, move |connection, id| {
            connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO messages (key, etag, body, sent, visible)
                     SELECT key, etag, body, ?2, ?2 FROM dead_letters WHERE id = ?1",
                )?
                .execute(params![id, now])
                .map(|_sent| ())
        })
        .await?;
        self.queue.changed.notify_waiters();
        Ok(())
    }

    /// Remembers which version of which file it was: the file is still there, and the intake would send it
    /// again.
    async fn purge(&mut self, message: &DeadMessage) -> Result<(), QueueError> {
        self.settle(message, |connection, id| {
            connection
                .prepare_cached("INSERT OR IGNORE INTO purged SELECT key, etag FROM dead_letters WHERE id = ?")?
                .execute([id])
                .map(|_kept| ())
        })
        .await
    }
}

/// What [`dead_message`] wrote: an id is never given twice.
fn parse(receipt: &Receipt) -> Option<i64> {
    receipt.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::queue::{
        DeadLetter, Queue,
        local::{Clock, NewMessage},
    };

    fn queue(folder: &tempfile::TempDir) -> Arc<LocalQueue> {
        let opened = LocalQueue::open(&folder.path().join("queue.db"), Duration::from_secs(30), Clock::system());
        Arc::new(opened.unwrap())
    }

    fn message(key: usize) -> NewMessage {
        NewMessage { key: key.to_string(), etag: "1".to_owned(), body: format!("body {key}").into() }
    }

    /// Receives all there is and gives it up.
    async fn die(queue: &LocalQueue) {
        loop {
            let messages = queue.receive(1_000).await.unwrap();
            if messages.is_empty() {
                return;
            }
            for message in messages {
                let letter = DeadLetter {
                    reason: "always".to_owned(),
                    class: "reject".to_owned(),
                    plugin: None,
                    attempts: message.receive_count,
                    key: None,
                    backtrace: None,
                };
                queue.dead_letter(&message, &letter).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_walk_sees_each_once_and_ends_though_what_it_puts_back_dies_again() {
        let folder = tempfile::tempdir().unwrap();
        let queue = queue(&folder);
        let number = 2 * usize::try_from(AT_ONCE).unwrap() + 1;
        queue.enqueue((0..number).map(message).collect()).await.unwrap();
        die(&queue).await;

        let mut walk = LocalDeadLetters::new(Arc::clone(&queue));
        let mut seen = Vec::new();
        loop {
            let messages = walk.next().await.unwrap();
            if messages.is_empty() {
                break;
            }
            for message in messages {
                seen.push(String::from_utf8(message.body.to_vec()).unwrap());
                walk.redrive(&message).await.unwrap();
            }
            die(&queue).await;
        }
        assert_eq!(seen, (0..number).map(|n| format!("body {n}")).collect::<Vec<_>>());
        assert_eq!(queue.dead_letters(1_000).await.unwrap().len(), number);
        assert!(walk.next().await.unwrap().is_empty(), "a walk that has ended stays so");
    }

    #[tokio::test]
    async fn what_was_redriven_starts_anew_and_what_was_purged_is_not_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let queue = queue(&folder);
        queue.enqueue(vec![message(0), message(1)]).await.unwrap();
        die(&queue).await;
        let mut walk = LocalDeadLetters::new(Arc::clone(&queue));
        let dead = walk.next().await.unwrap();
        walk.redrive(&dead[0]).await.unwrap();
        walk.purge(&dead[1]).await.unwrap();
        assert!(queue.dead_letters(10).await.unwrap().is_empty());
        for gone in &dead {
            assert!(matches!(walk.redrive(gone).await, Err(QueueError::Stale)));
            assert!(matches!(walk.purge(gone).await, Err(QueueError::Stale)));
        }

        assert_eq!(queue.enqueue(vec![message(0), message(1)]).await.unwrap(), 0, "both are known");
        let received = queue.receive(10).await.unwrap();
        let [received] = &received[..] else { panic!("{received:?}") };
        assert_eq!((&received.body[..], received.receive_count), (&b"body 0"[..], 1));
        let newer = NewMessage { etag: "2".to_owned(), ..message(1) };
        assert_eq!(queue.enqueue(vec![newer, message(1)]).await.unwrap(), 2, "the file was there in another version");
    }
}
