//! Assertions and extractors.

use serde::{Deserialize, Serialize};

/// What must hold of an answer. (The language core replaces this file.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assertion(pub serde_json::Value);

/// What is taken from an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extractor(pub serde_json::Value);
