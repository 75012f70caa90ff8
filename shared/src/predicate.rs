//! `run_if` and `skip_if`.

use serde::{Deserialize, Serialize};

/// A condition. (The language core replaces this file.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predicate(pub serde_json::Value);
