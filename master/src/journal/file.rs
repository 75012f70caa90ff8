//! The journal's file: SQLite in WAL mode, every commit synced, no other process in it.
//!
//! Every row ends with its checksum: SQLite does not see when a disk gives back other bytes than it got, and counts that
//! are read wrong would be believed.

use super::book::{Image, RecordKey, Write};
use super::folder::{Locked, NAME};
use super::recovered::RecoverError;
use ld_shared::id::Digest;
use sqlx::query::Query;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteLockingMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, QueryBuilder, Row as _};
use std::path::Path;

const TABLES: &str = "
    CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), form INTEGER NOT NULL, number INTEGER NOT NULL,
        ledger_at INTEGER NOT NULL, cut_success INTEGER NOT NULL, cut_failure INTEGER NOT NULL, sum INTEGER NOT NULL);
    CREATE TABLE entry (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL, sum INTEGER NOT NULL);
    CREATE TABLE blob (digest TEXT PRIMARY KEY, bytes BLOB NOT NULL, sum INTEGER NOT NULL);
    CREATE TABLE frames (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL, sum INTEGER NOT NULL);
    CREATE TABLE ticket (pool INTEGER, session INTEGER, granted INTEGER NOT NULL, next INTEGER NOT NULL,
        sum INTEGER NOT NULL, PRIMARY KEY (pool, session)) WITHOUT ROWID;
    CREATE TABLE record (kind INTEGER, priority INTEGER, ended_at INTEGER, response_us INTEGER, bytes BLOB NOT NULL,
        sum INTEGER NOT NULL, PRIMARY KEY (kind, priority, ended_at, response_us)) WITHOUT ROWID;
    CREATE TABLE part (key TEXT PRIMARY KEY, bytes BLOB NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;";

/// Version of the tables and of what is in them.
const FORM: i64 = 5;

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
    /// It is not what was written.
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
        set_state(&mut transaction, 0, 0, [u64::MAX; 2]).await.map_err(failed)?;
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
            let number = number.cast_signed();
            let sql = sqlx::query("INSERT INTO entry VALUES (?, ?, ?)").bind(number).bind(bytes.as_slice());
            sql.bind(sum(&[number], &[bytes])).execute(&mut *to).await?;
        }
        for (digest, bytes) in &write.blobs {
            let sql = sqlx::query("INSERT INTO blob VALUES (?, ?, ?)").bind(&*digest.0).bind(bytes.as_ref());
            sql.bind(sum(&[], &[digest.0.as_bytes(), bytes])).execute(&mut *to).await?;
        }
        if let Some(bytes) = &write.frames {
            let number = write.number.cast_signed();
            let sql = sqlx::query("INSERT INTO frames VALUES (?, ?, ?)").bind(number).bind(bytes.as_slice());
            sql.bind(sum(&[number], &[bytes])).execute(&mut *to).await?;
        }
        for ((pool, session), (granted, next)) in &write.tickets {
            let row = [*pool, session.cast_signed(), granted.cast_signed(), next.cast_signed()];
            let sql = sqlx::query("INSERT OR REPLACE INTO ticket VALUES (?, ?, ?, ?, ?)");
            let sql = row.into_iter().fold(sql, Query::bind);
            sql.bind(sum(&row, &[])).execute(&mut *to).await?;
        }
        let records: Vec<(&RecordKey, &Vec<u8>)> = write.records.iter().collect();
        for rows in records.chunks(RECORDS_AT_ONCE) {
            let mut sql = QueryBuilder::new("INSERT OR REPLACE INTO record ");
            sql.push_values(rows, |mut row, ((kind, priority, ended_at, response), bytes)| {
                let key = [i64::from(*kind), ordered(*priority), ended_at.cast_signed(), response.cast_signed()];
                for part in key {
                    row.push_bind(part);
                }
                row.push_bind(bytes.as_slice()).push_bind(sum(&key, &[bytes]));
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
                let sql = sqlx::query("INSERT OR REPLACE INTO part VALUES (?, ?, ?)").bind(key.as_str());
                sql.bind(bytes.as_slice()).bind(sum(&[], &[key.as_bytes(), bytes])).execute(&mut *to).await?;
            }
            ledger_at = write.number.cast_signed();
        } else if self.ledger_at > 0 {
            let old = "DELETE FROM frames WHERE number IN (SELECT number FROM frames WHERE number <= ? LIMIT ?)";
            sqlx::query(old).bind(self.ledger_at).bind(DELETED_AT_ONCE).execute(&mut *to).await?;
        }
        set_state(to, write.number.cast_signed(), ledger_at, write.cuts).await?;
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

async fn set_state(to: &mut SqliteConnection, number: i64, ledger_at: i64, cuts: [u64; 2]) -> Result<(), sqlx::Error> {
    let row = [1, FORM, number, ledger_at, ordered(cuts[0]), ordered(cuts[1])];
    let sql = sqlx::query("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?, ?, ?)");
    let sql = row.into_iter().fold(sql, Query::bind);
    sql.bind(sum(&row, &[])).execute(to).await?;
    Ok(())
}

async fn read(from: &mut SqliteConnection) -> Result<Image, FileError> {
    // another version's rows may have no checksum
    let form: i64 = sqlx::query_scalar("SELECT form FROM state").fetch_one(&mut *from).await.map_err(unreadable)?;
    if form != FORM {
        return Err(FileError::Form(form));
    }
    let mut image = Image::default();
    for row in rows(from, "state", "SELECT * FROM state").await? {
        (image.number, image.ledger_at) = (number(&row, 2)?, number(&row, 3)?);
        image.cuts = [unordered(get(&row, 4)?), unordered(get(&row, 5)?)];
    }
    for row in rows(from, "entry", "SELECT * FROM entry").await? {
        image.entries.insert(number(&row, 0)?, get(&row, 1)?);
    }
    for row in rows(from, "blob", "SELECT * FROM blob").await? {
        let (digest, bytes): (String, Vec<u8>) = (get(&row, 0)?, get(&row, 1)?);
        image.blobs.insert(Digest(digest.into()), bytes.into());
    }
    for row in rows(from, "frames", "SELECT * FROM frames").await? {
        image.frames.insert(number(&row, 0)?, get(&row, 1)?);
    }
    image.frames.retain(|number, _| *number > image.ledger_at);
    for row in rows(from, "ticket", "SELECT * FROM ticket").await? {
        image.tickets.insert((get(&row, 0)?, number(&row, 1)?), (number(&row, 2)?, number(&row, 3)?));
    }
    for row in rows(from, "record", "SELECT * FROM record").await? {
        let key = (u8::from(number(&row, 0)? != 0), unordered(get(&row, 1)?), number(&row, 2)?, number(&row, 3)?);
        image.records.insert(key, get(&row, 4)?);
    }
    for row in rows(from, "part", "SELECT * FROM part").await? {
        image.ledger.insert(get(&row, 0)?, get(&row, 1)?);
    }
    Ok(image)
}

fn unreadable(source: sqlx::Error) -> FileError {
    FileError::Sqlite { what: "cannot read it", source }
}

/// Rows of a table, with all of their columns, that are what was written.
async fn rows(
    from: &mut SqliteConnection,
    table: &'static str,
    sql: &'static str,
) -> Result<Vec<SqliteRow>, FileError> {
    let rows = sqlx::query(sql).fetch_all(from).await.map_err(unreadable)?;
    let intact =
        |row: &SqliteRow| checksum(row).is_ok_and(|sum| row.try_get(row.len() - 1).is_ok_and(|kept: i64| kept == sum));
    if rows.iter().all(intact) { Ok(rows) } else { Err(FileError::Damaged(table)) }
}

fn get<'r, T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>>(
    row: &'r SqliteRow,
    column: usize,
) -> Result<T, FileError> {
    row.try_get(column).map_err(unreadable)
}

fn number(row: &SqliteRow, column: usize) -> Result<u64, FileError> {
    get(row, column).map(i64::cast_unsigned)
}

/// Of all columns but the last.
fn checksum(row: &SqliteRow) -> Result<i64, sqlx::Error> {
    let (mut numbers, mut contents) = (Vec::new(), Vec::new());
    for column in 0..row.len() - 1 {
        match row.try_get(column) {
            Ok(number) => numbers.push(number),
            Err(_) => contents.push(row.try_get(column)?),
        }
    }
    Ok(sum(&numbers, &contents))
}

/// The checksum of a row: its numbers, then its texts and bytes.
fn sum(numbers: &[i64], contents: &[&[u8]]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    for content in contents {
        hasher.update(content);
    }
    hasher.finalize().into()
}

/// A number as one that SQLite orders alike: it knows only signed ones.
fn ordered(number: u64) -> i64 {
    (number ^ (1 << 63)).cast_signed()
}

fn unordered(number: i64) -> u64 {
    number.cast_unsigned() ^ (1 << 63)
}
