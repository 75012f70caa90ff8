//! `ld-master`: decides and reports.

pub mod command;
pub mod format;
pub mod report;
pub mod run;
pub mod script;
