//! `ld-master`: decides and reports.

pub mod command;
pub mod run;
pub mod script;
pub mod target;
