//! The cluster.

pub mod assign;
pub mod ledger;
pub mod loss;
pub mod membership;
