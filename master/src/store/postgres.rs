//! PostgreSQL: a server.

use super::{Engine, said};
use std::fmt::Write as _;

/// PostgreSQL.
pub(super) struct Postgres;

impl Engine for Postgres {
    fn seed_tables(&self) -> &'static str {
        include_str!("../../migrations/postgres/1_seed.sql")
    }

    fn own_tables(&self) -> &'static str {
        include_str!("../../migrations/postgres/2_results.sql")
    }

    fn begin(&self) -> &'static str {
        "BEGIN"
    }

    /// `IF NOT EXISTS` does not keep two sessions from making one table at once. Held to the end of
    /// the transaction; the number is any of ours.
    fn guard(&self) -> Option<&'static str> {
        Some("SELECT pg_advisory_xact_lock(1279547984)")
    }

    /// Its placeholders are `$1`, `$2`, … Our statements hold no `?` in texts.
    fn statement(&self, sql: &str) -> String {
        let mut out = String::with_capacity(sql.len() + 16);
        let mut number = 0;
        for part in sql.split_inclusive('?') {
            match part.strip_suffix('?') {
                Some(before) => {
                    number += 1;
                    write!(out, "{before}${number}").expect("writing to a String cannot fail");
                }
                None => out.push_str(part),
            }
        }
        out
    }

    fn explain(&self, error: &sqlx::Error) -> String {
        said(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_numbered() {
        assert_eq!(Postgres.statement("a ? b, ?) LIMIT ?"), "a $1 b, $2) LIMIT $3");
        assert_eq!(Postgres.statement("none"), "none");
    }
}
