//! `ld-master`: decides and reports.

pub mod run;
pub mod target;
