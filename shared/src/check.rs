//! Assertions and extractors: what must hold of an answer, and what is taken from it.
//!
//! | assertion | passes if |
//! |---|---|
//! | `status_code` `value` | numbers are equal; a text with a number is one |
//! | `contains`, `not_contains` `value` | the text of the value occurs in the body; does not |
//! | `json_path` `path`, `value` | what the path leads to is equal by value and type |
//! | `header` `name`, `value` | equal; without `value`: there is no such header |
//!
//! Assertions are looked at in order, the first that fails gives the reason. Only if all passed,
//! extractors set variables; what leads to null leaves its variable as it was.

mod read;
mod run;

pub use run::Checks;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What must hold of an answer, as the plan holds it. `${}` may stand in values and paths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assertion {
    /// The status is this number, or the number that this text says.
    StatusCode(Value),
    /// The text of this value occurs in the body.
    Contains(Value),
    /// It does not.
    NotContains(Value),
    /// What the path leads to equals the value; nowhere is null.
    JsonPath {
        /// In the dialect of [`crate::path`].
        path: String,
        /// The value.
        value: Value,
    },
    /// The header equals the value; null: there is no such header.
    Header {
        /// In any case.
        name: String,
        /// The value.
        value: Value,
    },
}

/// What is taken from an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extractor {
    /// The variable that it sets.
    pub var: String,
    /// Where the value comes from.
    pub from: ExtractFrom,
}

/// Where an extractor finds its value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtractFrom {
    /// A path into the body, in the dialect of [`crate::path`]. `${}` may stand in it.
    JsonPath(String),
    /// The first header of that name, any case. `${}` may stand in it.
    Header(String),
    /// The status.
    StatusCode,
}
