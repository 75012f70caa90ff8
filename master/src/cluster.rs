//! The cluster.

pub mod ledger;
