//! The journal's file: SQLite in WAL mode, every commit synced, no other process in it.
//!
//! Behind every row's bytes stands their checksum: SQLite does not see when a disk gives back other bytes than it got,
//! and counts that are read wrong would be believed.

use super::book::{Image, RecordKey, Write};
use super::folder::{Locked, NAME};
use super::recovered::RecoverError;
use ld_shared::id::Digest;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, QueryBuilder, Row as _};
use std::path::Path;

const TABLES: &str = "
    CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), form INTEGER NOT NULL, number INTEGER NOT NULL,
        ledger_at INTEGER NOT NULL, cut_success INTEGER NOT NULL, cut_failure INTEGER NOT NULL);
    CREATE TABLE entry (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
    CREATE TABLE blob (digest TEXT PRIMARY KEY, bytes BLOB NOT NULL);
    CREATE TABLE frames (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
    CREATE TABLE ticket (pool INTEGER, session INTEGER, granted INTEGER NOT NULL, next INTEGER NOT NULL,
        PRIMARY KEY (pool, session)) WITHOUT ROWID;
    CREATE TABLE record (kind INTEGER, priority INTEGER, ended_at INTEGER, response_us INTEGER, bytes BLOB NOT NULL,
        PRIMARY KEY (kind, priority, ended_at, response_us)) WITHOUT ROWID;
    CREATE TABLE part (key TEXT PRIMARY KEY, bytes BLOB NOT NULL) WITHOUT ROWID;
    INSERT INTO state VALUES (1, 3, 0, 0, 9223372036854775807, 9223372036854775807);";

/// Version of the tables and of what is in them.
const FORM: i64 = 3;

/// Groups of frames that are not needed any more and go with one write: a large delete would hold up
/// the commits after it.
const DELETED_AT_ONCE: i64 = 4;

/// Records of one statement: each statement costs more than a few records.
const RECORDS_AT_ONCE: usize = 200;

/// Bytes of the write-ahead log that stay on the disk.
const LOG: &str = "16777216";

/// Why a journal's file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Its folder cannot be made or locked.
    #[error("{0}")]
    Folder(String),
    /// The database says no.
    #[error("{what}")]
    Sqlite {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
    /// It was written by another version.
    #[error("it is of form {0}, this version reads form {FORM}")]
    Form(i64),
    /// Bytes are not those that were written.
    #[error("a row of its table `{0}` is damaged")]
    Damaged(&'static str),
    /// Its content is no run.
    #[error(transparent)]
    Recover(RecoverError),
}

/// An open journal. Nobody else has it open.
#[derive(Debug)]
pub(super) struct JournalFile {
    connection: SqliteConnection,
    ledger_at: i64,
    /// Held until the connection is closed.
    locked: Locked,
}

impl JournalFile {
    /// Makes the file in `folder`, which is made too.
    pub(super) async fn create(folder: &Path) -> Result<Self, FileError> {
        let locked = Locked::create(folder).map_err(|error| FileError::Folder(error.to_string()))?;
        let failed = |source| FileError::Sqlite { what: "cannot make it", source };
        let mut connection = connect(&locked, true).await.map_err(failed)?;
        let mut transaction = connection.begin().await.map_err(failed)?;
        sqlx::raw_sql(TABLES).execute(&mut *transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(Self { connection, ledger_at: 0, locked })
    }

    /// Opens and reads a file that is there.
    pub(super) async fn open(locked: Locked) -> Result<(Self, Image), FileError> {
        let mut connection = connect(&locked, false).await.map_err(unreadable)?;
        let image = read(&mut connection).await?;
        Ok((Self { connection, ledger_at: image.ledger_at.cast_signed(), locked }, image))
    }

    /// One transaction, on the disk when this returns.
    pub(super) async fn write(&mut self, write: &Write) -> Result<(), FileError> {
        self.transaction(write).await.map_err(|source| FileError::Sqlite { what: "cannot write to it", source })
    }

    async fn transaction(&mut self, write: &Write) -> Result<(), sqlx::Error> {
        let mut transaction = self.connection.begin().await?;
        let to = &mut *transaction;
        for (number, bytes) in &write.entries {
            let sql = sqlx::query("INSERT INTO entry VALUES (?, ?)").bind(number.cast_signed());
            sql.bind(checked(bytes)).execute(&mut *to).await?;
        }
        for (digest, bytes) in &write.blobs {
            let sql = sqlx::query("INSERT INTO blob VALUES (?, ?)").bind(&*digest.0);
            sql.bind(checked(bytes)).execute(&mut *to).await?;
        }
        if let Some(bytes) = &write.frames {
            let sql = sqlx::query("INSERT INTO frames VALUES (?, ?)").bind(write.number.cast_signed());
            sql.bind(checked(bytes)).execute(&mut *to).await?;
        }
        for ((pool, session), (granted, next)) in &write.tickets {
            let sql = sqlx::query("INSERT OR REPLACE INTO ticket VALUES (?, ?, ?, ?)");
            let sql = sql.bind(pool).bind(session.cast_signed()).bind(granted.cast_signed());
            sql.bind(next.cast_signed()).execute(&mut *to).await?;
        }
        let records: Vec<(&RecordKey, &Vec<u8>)> = write.records.iter().collect();
        for rows in records.chunks(RECORDS_AT_ONCE) {
            let mut sql = QueryBuilder::new("INSERT OR REPLACE INTO record ");
            sql.push_values(rows, |mut row, ((kind, priority, ended_at, response), bytes)| {
                row.push_bind(i64::from(*kind)).push_bind(ordered(*priority)).push_bind(ended_at.cast_signed());
                row.push_bind(response.cast_signed()).push_bind(checked(bytes));
            });
            sql.build().execute(&mut *to).await?;
        }
        for (kind, cut) in (0_i64..).zip(write.cuts).filter(|(_, cut)| *cut < u64::MAX) {
            let sql = sqlx::query("DELETE FROM record WHERE kind = ? AND priority >= ?");
            sql.bind(kind).bind(ordered(cut)).execute(&mut *to).await?;
        }
        let mut ledger_at = self.ledger_at;
        if let Some((changed, gone)) = &write.ledger {
            for key in gone {
                sqlx::query("DELETE FROM part WHERE key = ?").bind(key.as_str()).execute(&mut *to).await?;
            }
            for (key, bytes) in changed {
                let sql = sqlx::query("INSERT OR REPLACE INTO part VALUES (?, ?)").bind(key.as_str());
                sql.bind(checked(bytes)).execute(&mut *to).await?;
            }
            ledger_at = write.number.cast_signed();
        } else if self.ledger_at > 0 {
            let old = "DELETE FROM frames WHERE number IN (SELECT number FROM frames WHERE number <= ? LIMIT ?)";
            sqlx::query(old).bind(self.ledger_at).bind(DELETED_AT_ONCE).execute(&mut *to).await?;
        }
        let state = "UPDATE state SET number = ?, ledger_at = ?, cut_success = ?, cut_failure = ?";
        let state = sqlx::query(state).bind(write.number.cast_signed()).bind(ledger_at);
        state.bind(ordered(write.cuts[0])).bind(ordered(write.cuts[1])).execute(&mut *to).await?;
        transaction.commit().await?;
        self.ledger_at = ledger_at;
        Ok(())
    }

    /// Not every acknowledged frame is in it.
    pub(super) fn mark_incomplete(&self) {
        self.locked.mark_incomplete();
    }

    /// Its folder's lock, with the file closed.
    pub(super) async fn close(self) -> Locked {
        // everything is committed
        drop(self.connection.close().await);
        self.locked
    }
}

async fn connect(locked: &Locked, create: bool) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnectOptions::new()
        .filename(locked.folder().join(NAME))
        .create_if_missing(create)
        // before the journal mode: then the log's index is no file that others could map
        .locking_mode(SqliteLockingMode::Exclusive)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", LOG)
        .disable_statement_logging()
        .connect()
        .await
}

async fn read(from: &mut SqliteConnection) -> Result<Image, FileError> {
    let mut image = Image::default();
    let state = "SELECT form, number, ledger_at, cut_success, cut_failure FROM state";
    let state = sqlx::query(state).fetch_one(&mut *from).await.map_err(unreadable)?;
    let of_state = |column| state.try_get::<i64, _>(column).map_err(unreadable);
    if of_state(0)? != FORM {
        return Err(FileError::Form(of_state(0)?));
    }
    image.number = of_state(1)?.cast_unsigned();
    image.ledger_at = of_state(2)?.cast_unsigned();
    image.cuts = [unordered(of_state(3)?), unordered(of_state(4)?)];
    for row in rows(from, "SELECT number, bytes FROM entry").await? {
        image.entries.insert(number(&row, 0)?, bytes(&row, "entry")?);
    }
    for row in rows(from, "SELECT digest, bytes FROM blob").await? {
        let digest: String = row.try_get(0).map_err(unreadable)?;
        image.blobs.insert(Digest(digest.into()), bytes(&row, "blob")?.into());
    }
    for row in rows(from, "SELECT number, bytes FROM frames WHERE number > (SELECT ledger_at FROM state)").await? {
        image.frames.insert(number(&row, 0)?, bytes(&row, "frames")?);
    }
    for row in rows(from, "SELECT pool, session, granted, next FROM ticket").await? {
        let pool = number(&row, 0)?.cast_signed();
        image.tickets.insert((pool, number(&row, 1)?), (number(&row, 2)?, number(&row, 3)?));
    }
    for row in rows(from, "SELECT kind, priority, ended_at, response_us, bytes FROM record").await? {
        let priority = unordered(number(&row, 1)?.cast_signed());
        let key: RecordKey = (u8::from(number(&row, 0)? != 0), priority, number(&row, 2)?, number(&row, 3)?);
        image.records.insert(key, bytes(&row, "record")?);
    }
    for row in rows(from, "SELECT key, bytes FROM part").await? {
        image.ledger.insert(row.try_get(0).map_err(unreadable)?, bytes(&row, "part")?);
    }
    Ok(image)
}

fn unreadable(source: sqlx::Error) -> FileError {
    FileError::Sqlite { what: "cannot read it", source }
}

async fn rows(from: &mut SqliteConnection, sql: &'static str) -> Result<Vec<SqliteRow>, FileError> {
    sqlx::query(sql).fetch_all(from).await.map_err(unreadable)
}

fn number(row: &SqliteRow, column: usize) -> Result<u64, FileError> {
    row.try_get::<i64, _>(column).map(i64::cast_unsigned).map_err(unreadable)
}

/// The bytes in a row's last column, without their checksum.
fn bytes(row: &SqliteRow, table: &'static str) -> Result<Vec<u8>, FileError> {
    let mut bytes: Vec<u8> = row.try_get(row.len() - 1).map_err(unreadable)?;
    let (content, checksum) = bytes.split_last_chunk().ok_or(FileError::Damaged(table))?;
    if crc32fast::hash(content).to_le_bytes() != *checksum {
        return Err(FileError::Damaged(table));
    }
    bytes.truncate(bytes.len() - 4);
    Ok(bytes)
}

/// Bytes with their checksum.
fn checked(bytes: &[u8]) -> Vec<u8> {
    [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat()
}

/// A number as one that SQLite orders alike: it knows only signed ones.
fn ordered(number: u64) -> i64 {
    (number ^ (1 << 63)).cast_signed()
}

fn unordered(number: i64) -> u64 {
    number.cast_unsigned() ^ (1 << 63)
}
