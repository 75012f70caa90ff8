//! What placeholders see. (The language core replaces the bodies; names and signatures stay.)

use crate::plan::{Plan, SourceRows};
use crate::rng::KeyedRng;
use serde_json::Value;
use std::sync::Arc;

/// What placeholders of a plan resolve to, the same for all users of a worker.
#[derive(Debug)]
pub struct Bindings {}

/// Index of a variable among all that a plan names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VarId(pub u16);

impl Bindings {
    /// From the plan and the rows of its sources, in the order of [`Plan::sources`].
    pub fn new(_plan: &Plan, _rows: Vec<Arc<SourceRows>>) -> Self {
        Self {}
    }
}

/// What one user sees beyond the bindings: its own variables, its iteration's rows and random numbers.
#[derive(Clone, Debug)]
pub struct Scope {}

/// A row of a source in an iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// This row.
    At(u64),
    /// The source has none left: placeholders keep their text.
    Exhausted,
}

impl Scope {
    /// A new user's scope.
    pub fn new(_bindings: &Bindings) -> Self {
        Self {}
    }

    /// An iteration begins: rows are forgotten, random numbers come from `rng`. Sources that cycle
    /// give row `number % rows`.
    pub fn begin_iteration(&mut self, _rng: KeyedRng, _number: u64) {}

    /// Gives this iteration's row of a source (index in [`Plan::sources`]).
    pub fn set_row(&mut self, _source: u32, _row: Row) {}

    /// Whether this iteration has its row of the source.
    pub fn has_row(&self, _source: u32) -> bool {
        true
    }

    /// Sets a variable for this user.
    pub fn set(&mut self, _var: VarId, _value: Value) {}
}
