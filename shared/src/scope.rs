//! What placeholders see: bindings, the same for all users of a plan, and each user's scope.

use crate::plan::{Dealing, Plan, SourceRows};
use crate::rng::KeyedRng;
use crate::secrets::Secrets;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What placeholders of a plan resolve to, the same for all users of a worker.
#[derive(Debug)]
pub struct Bindings {
    names: HashMap<Box<str>, VarId>,
    variables: Vec<Variable>,
    env: BTreeMap<String, String>,
    sources: Vec<Source>,
    secrets: Secrets,
}

/// A variable that the plan registers or extracts.
#[derive(Debug)]
struct Variable {
    /// The registered value. Null counts as unset.
    registered: Option<Value>,
    /// Whether an extractor of the plan may set it: then it differs from user to user.
    extracted: bool,
}

#[derive(Debug)]
struct Source {
    name: Arc<str>,
    columns: Vec<String>,
    rows: Arc<SourceRows>,
    dealing: Dealing,
}

/// Index of a variable among all that a plan names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VarId(pub u16);

impl Bindings {
    /// From the plan and the rows of its sources, in the order of [`Plan::sources`].
    ///
    /// Of more than 65,535 variables those beyond keep their text: the checker of documents
    /// refuses such plans.
    pub fn new(plan: &Plan, rows: Vec<Arc<SourceRows>>) -> Self {
        let sources = plan.sources.iter().zip(rows).map(|(source, rows)| Source {
            name: Arc::clone(&source.name),
            columns: source.columns.clone(),
            rows,
            dealing: source.dealing,
        });
        let mut bindings = Self {
            names: HashMap::new(),
            variables: Vec::new(),
            env: plan.env.clone(),
            sources: sources.collect(),
            secrets: Secrets::default(),
        };
        for (name, value) in &plan.variables {
            if let Some(variable) = bindings.declare(name) {
                variable.registered = Some(value.clone()).filter(|value| !value.is_null());
            }
        }
        for extractor in plan.all_tasks().flat_map(|task| &task.extract) {
            if let Some(variable) = bindings.declare(&extractor.var) {
                variable.extracted = true;
            }
        }
        bindings
    }

    /// With the values of the plan's secrets.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// The secrets: whatever is shown of a request goes through [`Secrets::mask`].
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The value of a secret.
    pub(crate) fn secret(&self, name: &str) -> Option<&str> {
        self.secrets.get(name)
    }

    fn declare(&mut self, name: &str) -> Option<&mut Variable> {
        let id = if let Some(id) = self.names.get(name) {
            *id
        } else {
            let id = VarId(u16::try_from(self.variables.len()).ok()?);
            self.names.insert(name.into(), id);
            self.variables.push(Variable { registered: None, extracted: false });
            id
        };
        self.variables.get_mut(usize::from(id.0))
    }

    /// The id of a variable that the plan registers or extracts.
    pub fn var(&self, name: &str) -> Option<VarId> {
        self.names.get(name).copied()
    }

    /// The registered value of a variable; `None` if it has none or null.
    pub fn registered(&self, var: VarId) -> Option<&Value> {
        self.variables.get(usize::from(var.0))?.registered.as_ref()
    }

    /// Whether an extractor of the plan may set the variable.
    pub fn is_extracted(&self, var: VarId) -> bool {
        self.variables.get(usize::from(var.0)).is_some_and(|variable| variable.extracted)
    }

    /// The value of an environment variable on the master, if it was set there.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str)
    }

    /// Index of a data source and of one of its columns. Of columns with one name the last counts.
    pub fn column(&self, source: &str, column: &str) -> Option<(u32, u32)> {
        let index = self.sources.iter().position(|known| &*known.name == source)?;
        let column = self.sources.get(index)?.columns.iter().rposition(|known| known == column)?;
        Some((index as u32, column as u32))
    }

    fn cell(&self, source: u32, row: u64, column: u32) -> Option<&str> {
        let rows = &self.sources.get(source as usize)?.rows;
        rows.get(usize::try_from(row).ok()?)?.get(column as usize).map(String::as_str)
    }
}

/// What one user sees beyond the bindings: its own variables, its iteration's rows and random
/// numbers. Small: 64 bytes, plus what the user extracted, plus 24 bytes a source.
#[derive(Clone, Debug)]
pub struct Scope {
    rng: KeyedRng,
    /// Number of the iteration: chooses rows of sources that cycle.
    number: u64,
    /// One entry a source.
    rows: Box<[Choice]>,
    /// What this user extracted; few, so a list.
    own: Vec<(VarId, Value)>,
}

/// Which row of one source an iteration has.
#[derive(Clone, Copy, Debug)]
enum Choice {
    /// By the iteration's number.
    ByNumber,
    /// By a ticket that has not come yet.
    Open,
    /// As the engine said.
    Given(Row),
}

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
    pub fn new(bindings: &Bindings) -> Self {
        let choice = |source: &Source| match source.dealing {
            Dealing::Cycle => Choice::ByNumber,
            Dealing::Once(_) => Choice::Open,
        };
        let rows = bindings.sources.iter().map(choice).collect();
        Self { rng: KeyedRng::new(0, 0, 0), number: 0, rows, own: Vec::new() }
    }

    /// An iteration begins: rows are forgotten, random numbers come from `rng`. Sources that cycle
    /// give row `number % rows`.
    pub fn begin_iteration(&mut self, rng: KeyedRng, number: u64) {
        self.rng = rng;
        self.number = number;
        for row in &mut self.rows {
            if matches!(row, Choice::Given(_)) {
                *row = Choice::Open;
            }
        }
    }

    /// Gives this iteration's row of a source that is dealt once (index in [`Plan::sources`]).
    /// Nothing happens for a source that cycles.
    pub fn set_row(&mut self, source: u32, row: Row) {
        if let Some(choice @ (Choice::Open | Choice::Given(_))) = self.rows.get_mut(source as usize) {
            *choice = Choice::Given(row);
        }
    }

    /// Whether this iteration has its row of the source: always so for one that cycles.
    pub fn has_row(&self, source: u32) -> bool {
        !matches!(self.rows.get(source as usize), Some(Choice::Open))
    }

    /// Sets a variable for this user.
    pub fn set(&mut self, var: VarId, value: Value) {
        match self.own.iter_mut().find(|(own, _)| *own == var) {
            Some((_, old)) => *old = value,
            None => self.own.push((var, value)),
        }
    }

    /// A variable as this user sees it; `None` if it is unset.
    pub fn get<'a>(&'a self, bindings: &'a Bindings, var: VarId) -> Option<&'a Value> {
        let own = self.own.iter().find(|(own, _)| *own == var).map(|(_, value)| value);
        own.or_else(|| bindings.registered(var))
    }

    /// What this user extracted, by name.
    pub fn extracted(&self, bindings: &Bindings) -> Map<String, Value> {
        let value = |id: &VarId| self.own.iter().find(|(own, _)| own == id).map(|(_, value)| value.clone());
        bindings.names.iter().filter_map(|(name, id)| Some((name.to_string(), value(id)?))).collect()
    }

    /// A column of this iteration's row; `None` if there is no row or it is too short.
    pub fn cell<'a>(&self, bindings: &'a Bindings, source: u32, column: u32) -> Option<&'a str> {
        let row = match self.rows.get(source as usize)? {
            Choice::ByNumber => {
                let rows = bindings.sources.get(source as usize)?.rows.len() as u64;
                self.number.checked_rem(rows)?
            }
            Choice::Given(Row::At(row)) => *row,
            Choice::Given(Row::Exhausted) | Choice::Open => return None,
        };
        bindings.cell(source, row, column)
    }

    /// This iteration's random numbers.
    pub fn rng(&mut self) -> &mut KeyedRng {
        &mut self.rng
    }
}
