//! `ld-master`: decides and reports.

pub mod cluster;
pub mod command;
pub mod run;
pub mod script;
