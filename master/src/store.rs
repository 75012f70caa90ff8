//! Where runs are kept: SQLite by path, PostgreSQL by `postgres://` URL.
//!
//! Both hold the seed's tables, which its own queries read, and beside them what a run was and what it
//! measured, so that runs can be compared. One code path: statements are written once with `?`, and an
//! [`Engine`] says what its database wants differently. Each write is one transaction, so that a store
//! is sound whatever ends the process in the middle of one.
//!
//! To add an engine: a file beside this one's children, its tables below `master/migrations/`, and its
//! scheme in [`open`].

pub mod history;
mod postgres;
mod records;
mod results;
mod sqlite;

pub use records::{KeptRecord, RunRow};
pub use results::{Entry, Found, Kept, Measured, Saved};

use crate::redact;
use sqlx::any::{AnyArguments, AnyConnectOptions, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, ConnectOptions as _, Connection as _};
use std::path::PathBuf;
use std::sync::Once;

/// What its database wants differently.
trait Engine: Sync {
    /// The seed's tables.
    fn seed_tables(&self) -> &'static str;
    /// Our tables.
    fn own_tables(&self) -> &'static str;
    /// Begins a transaction that will write.
    fn begin(&self) -> &'static str;
    /// Keeps others from making the same tables at the same time; runs inside the transaction.
    fn guard(&self) -> Option<&'static str>;
    /// A statement with `?` in its own form.
    fn statement(&self, sql: &str) -> String;
    /// An error in its own words, with what it means where that can be said better.
    fn explain(&self, error: &sqlx::Error) -> String;
}

/// Why a store could not be used. The seed's class of all of them is `OperationalError`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be opened.
    #[error("cannot open the database `{place}`: {reason}")]
    Open {
        /// Its path or URL, without password.
        place: String,
        /// Why.
        reason: String,
    },
    /// It could not be read.
    #[error("cannot read from the database `{place}`: {reason}")]
    Read {
        /// Its path or URL, without password.
        place: String,
        /// Why.
        reason: String,
    },
    /// It could not be written to; it is as it was.
    #[error("cannot write to the database `{place}`: {reason}")]
    Write {
        /// Its path or URL, without password.
        place: String,
        /// Why.
        reason: String,
    },
}

/// An open store.
pub struct Store {
    engine: &'static dyn Engine,
    connection: AnyConnection,
    place: String,
    /// What must never be shown.
    password: Option<String>,
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A file.
    File(PathBuf),
    /// A server.
    Server(String),
}

/// What to do about a file that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Make it.
    Create,
    /// That is an error.
    Fail,
}

/// Opens the store at `place`: a path, a `sqlite:` URL, or a `postgres://` URL.
pub async fn open(place: &str, missing: Missing) -> Result<Store, StoreError> {
    static DRIVERS: Once = Once::new();
    DRIVERS.call_once(sqlx::any::install_default_drivers);
    let (engine, url, password): (&'static dyn Engine, String, _) = match parse(place) {
        Place::File(path) => {
            let url = sqlite::url(&path, missing).map_err(|reason| open_error(place, reason))?;
            (&sqlite::Sqlite, url, None)
        }
        Place::Server(url) => {
            let password = password_of(&url);
            (&postgres::Postgres, url, password)
        }
    };
    let failed = |error: &sqlx::Error| open_error(place, hidden(engine.explain(error), password.as_deref()));
    let options: AnyConnectOptions = url.parse().map_err(|error| failed(&error))?;
    // statements carry no values, yet a database's address may be in what drivers log
    let connection = options.disable_statement_logging().connect().await.map_err(|error| failed(&error))?;
    Ok(Store { engine, connection, place: shown(place), password })
}

/// A scheme of two letters or more is one; `C:\x` is a path.
fn parse(place: &str) -> Place {
    let lower = place.to_ascii_lowercase();
    if lower.starts_with("postgres://") || lower.starts_with("postgresql://") {
        return Place::Server(place.to_owned());
    }
    let path = ["sqlite://", "sqlite:"].iter().find_map(|scheme| place.strip_prefix(scheme)).unwrap_or(place);
    Place::File(PathBuf::from(path))
}

fn open_error(place: &str, reason: String) -> StoreError {
    StoreError::Open { place: shown(place), reason }
}

/// A place as people may see it: without password, and of a server without its parameters, among
/// which there may be another one.
fn shown(place: &str) -> String {
    match parse(place) {
        Place::Server(url) => redact::urls(url.split('?').next().unwrap_or_default()),
        Place::File(_) => redact::urls(place),
    }
}

/// The password of a URL: in its user part, or as a parameter.
fn password_of(url: &str) -> Option<String> {
    let authority = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let user = authority.rsplit_once('@').and_then(|(user, _host)| user.split_once(':'));
    let parameter = url.split_once('?').into_iter().flat_map(|(_, query)| query.split('&'));
    let mut parameter = parameter.filter_map(|pair| pair.strip_prefix("password="));
    let password = user.map(|(_, password)| password).or_else(|| parameter.next())?;
    Some(password.to_owned()).filter(|password| !password.is_empty())
}

fn hidden(text: String, password: Option<&str>) -> String {
    match password {
        Some(password) if text.contains(password) => text.replace(password, redact::HIDDEN),
        _ => text,
    }
}

type Statement = Query<'static, Any, AnyArguments>;

impl Store {
    /// Its path or URL, without password.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Makes the seed's tables if they are not there.
    async fn seed_tables(&mut self) -> Result<(), StoreError> {
        let seed = self.engine.seed_tables();
        self.make(seed).await.map_err(|error| self.unreadable(&error))
    }

    async fn make(&mut self, tables: &'static str) -> Result<(), sqlx::Error> {
        let mut transaction = self.connection.begin().await?;
        if let Some(guard) = self.engine.guard() {
            sqlx::raw_sql(guard).execute(&mut *transaction).await?;
        }
        sqlx::raw_sql(tables).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    fn query(&self, sql: &str) -> Statement {
        statement(self.engine, sql)
    }

    async fn rows(&mut self, query: Statement) -> Result<Vec<AnyRow>, StoreError> {
        query.fetch_all(&mut self.connection).await.map_err(|error| self.unreadable(&error))
    }

    fn unreadable(&self, error: &sqlx::Error) -> StoreError {
        let reason = hidden(self.engine.explain(error), self.password.as_deref());
        StoreError::Read { place: self.place.clone(), reason }
    }

    fn unwritable(&self, error: &sqlx::Error) -> StoreError {
        let reason = hidden(self.engine.explain(error), self.password.as_deref());
        StoreError::Write { place: self.place.clone(), reason }
    }

    /// Says goodbye to it. Nothing is lost without.
    pub async fn close(self) {
        // everything is committed; a server that does not say goodbye changes nothing
        drop(self.connection.close().await);
    }
}

fn statement(engine: &dyn Engine, sql: &str) -> Statement {
    sqlx::query(AssertSqlSafe(engine.statement(sql)))
}

/// `(?, ?), (?, ?)` for so many rows of so many columns.
fn places(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    vec![row; rows].join(", ")
}

/// What the database itself said, without the driver's frame around it.
fn said(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => crate::command::with_causes(other),
    }
}

/// A text that every engine can hold: PostgreSQL knows no U+0000.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests;
