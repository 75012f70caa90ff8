//! `ld-master`: decides and reports.

pub mod command;
pub mod cluster;
pub mod run;
pub mod script;
