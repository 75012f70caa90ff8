//! `ld-master`: decides and reports.
//!
//! The straight path: [`cli`] reads documents, [`command`]s run one after another on an [`app::App`],
//! a test becomes [`run::Measured`], that a [`run::result::RunResult`] and [`run::verdict::Verdict`],
//! and those become [`report`]s.

pub mod api;
pub mod app;
pub mod cli;
pub mod cluster;
pub mod command;
pub mod compare;
pub mod console;
pub mod data_dir;
pub mod doctor;
pub mod executor;
pub mod exporter;
pub mod format;
pub mod import;
pub mod journal;
pub mod lint;
pub mod live;
pub mod mcp;
pub mod package;
pub mod placeholders;
pub mod record_file;
pub mod redact;
pub mod remote;
pub mod report;
pub mod run;
pub mod schema;
pub mod script;
pub mod secrets;
pub mod sla;
pub mod socket;
pub mod store;
pub mod table;
pub mod target;
pub mod web;
