//! [`Commands`]: what an app can run.

use super::builtins::{self, BUILTINS, Builtin};
use super::{Command, CommandError, Entry, Running, commands};
use crate::app::App;
use crate::script::{Arguments, CommandSpec, Signature, Vocabulary};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an app can run: the table, and what was added to it at run time. A value: adding makes
/// another one, so that whoever holds it sees no change.
#[derive(Clone)]
pub struct Commands {
    table: Vec<Entry>,
    outside: BTreeMap<String, Arc<Outside>>,
}

/// The work of a command from outside: a closure of the host program, or a call of a package.
type Call = dyn for<'a> Fn(Arguments, &'a App) -> Running<'a> + Send + Sync;

/// A command from outside. It takes any arguments and says itself what is wrong with them.
pub struct Outside {
    /// What it does, for help.
    pub about: String,
    /// Where it comes from, for errors and lists: a package, `the host program`.
    pub origin: String,
    call: Box<Call>,
}

impl Outside {
    /// From its work.
    pub fn new(
        about: impl Into<String>,
        origin: impl Into<String>,
        call: impl for<'a> Fn(Arguments, &'a App) -> Running<'a> + Send + Sync + 'static,
    ) -> Self {
        Self { about: about.into(), origin: origin.into(), call: Box::new(call) }
    }

    /// Runs it.
    pub fn run<'a>(&self, arguments: Arguments, app: &'a App) -> Running<'a> {
        (self.call)(arguments, app)
    }
}

/// A command of some kind.
pub enum Found<'a> {
    /// One of the table.
    Entry(&'a Entry),
    /// A function of Python.
    Builtin(&'static Builtin),
    /// One from outside.
    Outside(&'a Arc<Outside>),
}

impl Default for Commands {
    fn default() -> Self {
        Self { table: commands(), outside: BTreeMap::new() }
    }
}

impl Commands {
    /// The command of that name. One from outside hides a function of Python.
    pub fn find(&self, name: &str) -> Option<Found<'_>> {
        let entry = self.table.iter().find(|entry| entry.spec.name == name).map(Found::Entry);
        entry
            .or_else(|| self.outside.get(name).map(Found::Outside))
            .or_else(|| builtins::find(name).map(Found::Builtin))
    }

    /// Adds a command type; one of the same name gives way.
    pub fn add<C: Command>(&mut self) {
        self.outside.remove(C::SPEC.name);
        self.table.retain(|entry| entry.spec.name != C::SPEC.name);
        self.table.push(Entry::of::<C>());
    }

    /// Adds a command from outside under a name; one of the same name gives way.
    ///
    /// # Errors
    ///
    /// A name that documents could not write, or that of a command of the table: documents rely on
    /// those.
    pub fn add_outside(&mut self, name: impl Into<String>, command: Outside) -> Result<(), CommandError> {
        let name = name.into();
        let class = "LoadDensityAddCommandException";
        if name.is_empty() {
            return Err(CommandError::failed(class, "a command needs a name"));
        }
        if self.table.iter().any(|entry| entry.spec.name == name) {
            let message = format!("`{name}` from {} would hide the command of that name", command.origin);
            return Err(CommandError::failed(class, message));
        }
        self.outside.insert(name, Arc::new(command));
        Ok(())
    }

    /// The commands of the table, in its order.
    pub fn table(&self) -> &[Entry] {
        &self.table
    }

    /// The commands from outside, by name.
    pub fn outside(&self) -> impl Iterator<Item = (&str, &Outside)> {
        self.outside.iter().map(|(name, command)| (name.as_str(), &**command))
    }

    /// The specification of a command of the table.
    pub fn spec(&self, name: &str) -> Option<&CommandSpec> {
        self.table.iter().map(|entry| &entry.spec).find(|spec| spec.name == name)
    }
}

impl Vocabulary for Commands {
    fn signature(&self, name: &str) -> Option<Signature<'_>> {
        Some(match self.find(name)? {
            Found::Entry(entry) => Signature::Fixed(&entry.spec),
            Found::Builtin(builtin) => Signature::Function(builtin.function),
            Found::Outside(_) => Signature::Open,
        })
    }

    fn names(&self) -> Vec<&str> {
        let table = self.table.iter().map(|entry| entry.spec.name);
        let functions = BUILTINS.iter().map(|builtin| builtin.function.name);
        table.chain(self.outside.keys().map(String::as_str)).chain(functions).collect()
    }

    fn refusal(&self, name: &str) -> Option<&'static str> {
        builtins::refusal(name)
    }
}
