//! Commands: what an action may do.

pub mod start_test;
