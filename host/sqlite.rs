//! A SQLite database behind one thread that commits in groups.
//!
//! A write is answered when it is on disk (WAL, `synchronous = FULL`), so it survives a power cut. To make
//! that cheap, the thread runs all the commands that are waiting in one transaction and answers them after
//! its commit: sixteen jobs that finish together share one fsync. A write that matters only while this host
//! lives is [`Keep::WhileRunning`]; a batch of such does without the fsync.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

/// Commands in one transaction. Enough that the fsync vanishes in the rest, few enough that the first of
/// them is still answered within some milliseconds.
const COMMANDS_PER_COMMIT: usize = 256;

/// Commands that may wait before senders do. Twice a commit's, so that the thread never runs dry.
const COMMANDS_WAITING: usize = 2 * COMMANDS_PER_COMMIT;

/// Prepared statements kept per connection; no user of this module has half as many.
const STATEMENTS: usize = 64;

/// How long to wait for another process that looks into the database (a backup, a curious `sqlite3`).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It was written by a newer version of this program.
    #[error(
        "the database `{path}` has schema {found}, but this gristmill knows only {known}: use the newer gristmill \
         that wrote it, or move the file away to start afresh",
        path = path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: usize,
        /// The newest schema known here.
        known: usize,
    },
    /// SQLite refused.
    #[error("cannot open the database `{path}`: {reason}", path = path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        reason: String,
    },
    /// No thread could be started for it.
    #[error("cannot start a thread for the database `{path}`: {reason}", path = path.display())]
    Thread {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: std::io::Error,
    },
}

/// The database cannot serve now (disk full, I/O error); nothing of the command was kept.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// What a write has to survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// The death of the process.
    WhileRunning,
    /// A power cut.
    Forever,
}

/// A database, its writing thread and a connection to read with. Dropping it ends the thread after the
/// commands that were sent before.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    commands: Option<mpsc::Sender<Box<dyn Command>>>,
    thread: Option<thread::JoinHandle<()>>,
    reader: Mutex<Connection>,
}

impl Database {
    /// Opens or creates the database and brings it to the newest schema: step `n` of `migrations` leads
    /// from schema `n` to `n + 1`. Blocks.
    pub fn open(path: &Path, migrations: &[&str]) -> Result<Self, OpenError> {
        let refused = |error: rusqlite::Error| OpenError::Sqlite { path: path.to_owned(), reason: explain(&error) };
        let mut writer = Connection::open(path).map_err(refused)?;
        configure(&writer).map_err(refused)?;

        let found = migrate(&mut writer, migrations).map_err(refused)?;
        if found > migrations.len() {
            return Err(OpenError::Newer { path: path.to_owned(), found, known: migrations.len() });
        }
        let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(refused)?;
        reader.busy_timeout(BUSY_TIMEOUT).map_err(refused)?;
        reader.set_prepared_statement_cache_capacity(STATEMENTS);

        let (sender, receiver) = mpsc::channel(COMMANDS_WAITING);
        let name = path.file_stem().map_or_else(|| "sqlite".into(), |stem| stem.to_string_lossy().into_owned());
        let thread = thread::Builder::new()
            .name(name)
            .spawn({
                let path = path.to_owned();
                move || serve(&path, &mut writer, receiver)
            })
            .map_err(|reason| OpenError::Thread { path: path.to_owned(), reason })?;
        Ok(Self { path: path.to_owned(), commands: Some(sender), thread: Some(thread), reader: Mutex::new(reader) })
    }

    /// Runs `work` on the database's thread and answers after it is kept. A command whose caller has gone
    /// before its turn is not run.
    pub async fn write<T: Send + 'static>(
        &self,
        keep: Keep,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (command, answer) = Call::prepare(keep, work);
        let Some(commands) = &self.commands else { return Err(self.ended()) };
        commands.send(command).await.map_err(|_closed| self.ended())?;
        answer.await.unwrap_or_else(|_dropped| Err(self.ended()))
    }

    /// [`Database::write`] for callers on a thread of their own.
    pub fn write_blocking<T: Send + 'static>(
        &self,
        keep: Keep,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (command, answer) = Call::prepare(keep, work);
        let Some(commands) = &self.commands else { return Err(self.ended()) };
        commands.blocking_send(command).map_err(|_closed| self.ended())?;
        answer.blocking_recv().unwrap_or_else(|_dropped| Err(self.ended()))
    }

    /// Reads what is committed, without waiting for the writing thread. Blocks for the time of the query.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Unavailable> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        work(&reader).map_err(|error| unavailable(&self.path, &error))
    }

    fn ended(&self) -> Unavailable {
        Unavailable(format!("the thread of the database `{}` has ended: restart gristmill", self.path.display()))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic in a command was reported by the panic hook and to everybody who waited.
            let _ = thread.join();
        }
    }
}

/// Something to run in the next transaction.
trait Command: Send {
    fn keep(&self) -> Keep;
    fn wanted(&self) -> bool;
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, outcome: Result<(), Unavailable>);
}

struct Call<F, T> {
    keep: Keep,
    work: Option<F>,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, Unavailable>>,
}

impl<F, T> Call<F, T>
where
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    T: Send + 'static,
{
    fn prepare(keep: Keep, work: F) -> (Box<dyn Command>, oneshot::Receiver<Result<T, Unavailable>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { keep, work: Some(work), value: None, reply }), answer)
    }
}

impl<F, T> Command for Call<F, T>
where
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn keep(&self) -> Keep {
        self.keep
    }

    fn wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.value = Some(work(connection)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), Unavailable>) {
        let answer = match (outcome, self.value) {
            (Ok(()), Some(value)) => Ok(value),
            (Err(error), _) => Err(error),
            (Ok(()), None) => return,
        };
        // Nobody waits any more when the caller was cancelled; the command has taken effect all the same.
        let _ = self.reply.send(answer);
    }
}

/// The database's thread: everything that waits, one transaction, the answers; until the last sender is
/// gone.
fn serve(path: &Path, writer: &mut Connection, mut commands: mpsc::Receiver<Box<dyn Command>>) {
    while let Some(first) = commands.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < COMMANDS_PER_COMMIT
            && let Ok(next) = commands.try_recv()
        {
            batch.push(next);
        }
        batch.retain(|command| command.wanted());

        let outcome = commit(writer, &mut batch).map_err(|error| unavailable(path, &error));
        for command in batch {
            command.answer(outcome.clone());
        }
    }
}

/// A command that means to refuse does so in its value. An error of SQLite's own (disk full, I/O) would
/// meet the rest of the batch as well, so it takes the whole transaction back.
fn commit(writer: &mut Connection, batch: &mut [Box<dyn Command>]) -> rusqlite::Result<()> {
    let keep = batch.iter().map(|command| command.keep()).max();
    writer.pragma_update(None, "synchronous", if keep == Some(Keep::Forever) { "FULL" } else { "NORMAL" })?;
    let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for command in batch {
        command.run(&transaction)?;
    }
    transaction.commit()
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

/// Answers the schema that it found.
fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let found = found as usize;
    if found < migrations.len() {
        for step in migrations.iter().skip(found) {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", migrations.len() as u32)?;
    }
    transaction.commit()?;
    Ok(found)
}

fn unavailable(path: &Path, error: &rusqlite::Error) -> Unavailable {
    Unavailable(format!("the database `{}` cannot serve now: {}", path.display(), explain(error)))
}

fn explain(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full: free some space".to_owned(),
        Some(ErrorCode::ReadOnly) => format!("{error}: make the file and its directory writable"),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            format!("{error}: move the file away to start afresh")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &[&str] = &["CREATE TABLE numbers (n INTEGER PRIMARY KEY)"];

    fn numbers(database: &Database) -> Vec<i64> {
        database
            .read(|connection| {
                connection.prepare("SELECT n FROM numbers ORDER BY n")?.query_map([], |row| row.get(0))?.collect()
            })
            .unwrap()
    }

    fn insert(n: i64) -> impl FnOnce(&Connection) -> rusqlite::Result<usize> + Send + 'static {
        move |connection| connection.execute("INSERT INTO numbers VALUES (?)", [n])
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n.db");
        let database = Database::open(&path, SCHEMA).unwrap();
        let writes = (0..100).map(|n| database.write(Keep::Forever, insert(n)));
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap();
        }
        drop(database);
        assert_eq!(numbers(&Database::open(&path, SCHEMA).unwrap()), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn an_error_takes_its_whole_batch_back_and_the_thread_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("n.db"), SCHEMA).unwrap();
        let (first, second) = {
            // Both wait in the channel while the thread is held up, so that they share a transaction.
            let (entered, held) = oneshot::channel();
            let (release, released) = std::sync::mpsc::channel::<()>();
            let hold = database.write(Keep::Forever, move |_| {
                let _ = entered.send(());
                let _ = released.recv();
                Ok(())
            });
            let both = async {
                held.await.unwrap();
                let mut first = Box::pin(database.write(Keep::Forever, insert(1)));
                let mut second = Box::pin(database.write(Keep::Forever, insert(1)));
                assert!(futures_pending(first.as_mut()).await && futures_pending(second.as_mut()).await);
                release.send(()).unwrap();
                (first.await, second.await)
            };
            let (_, both) = tokio::join!(hold, both);
            both
        };
        assert!(first.is_err() && second.is_err());
        assert!(numbers(&database).is_empty());
        database.write(Keep::Forever, insert(2)).await.unwrap();
        assert_eq!(numbers(&database), [2]);
    }

    /// Polls once.
    async fn futures_pending<F: Future + Unpin>(future: F) -> bool {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }

    #[test]
    fn a_newer_schema_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n.db");
        drop(Database::open(&path, &[SCHEMA[0], "CREATE TABLE more (n)"]).unwrap());
        let error = Database::open(&path, SCHEMA).unwrap_err().to_string();
        assert!(error.contains("schema 2") && error.contains("n.db"), "{error}");
    }

    #[test]
    fn something_else_than_a_database_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n.db");
        std::fs::write(&path, "this is certainly no database, and long enough to be looked at".repeat(10)).unwrap();
        let error = Database::open(&path, SCHEMA).unwrap_err().to_string();
        assert!(error.contains("n.db") && error.contains("move the file away"), "{error}");
    }
}
