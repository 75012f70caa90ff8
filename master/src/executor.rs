//! Runs documents: one action after another on an [`App`]. The command line, `LD_execute_action`,
//! `LD_execute_files`, surfaces and host programs all come here.
//!
//! An action that fails stops nothing: its record is the error, and the next one runs.

mod mask;
pub mod records;
mod seed;

pub(crate) use mask::masked;

use crate::app::App;
use crate::command::{CommandError, Found, Nested, refused};
use crate::script::{self, Action, Checker, Document, EXECUTE_EXCEPTION, Fault, MOST_DEEP, Strictness};
use ld_shared::fault::Seed;
use serde_json::{Map, Value};
use std::pin::Pin;

/// What became of an action.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its place in the document, from 0.
    pub index: usize,
    /// Its command.
    pub command: String,
    /// The action as written.
    pub source: Value,
    /// Its result.
    pub result: Result<Value, CommandError>,
    /// What became of the documents that it ran, one list each.
    pub nested: Vec<Vec<Self>>,
}

impl Outcome {
    /// Every error: its own, and those of actions of the documents that it ran. Each with where it
    /// came from: `action 2 (LD_x)`, `action 2 (LD_execute_action), action 0 (LD_x)`.
    pub fn errors(&self) -> Vec<(String, &CommandError)> {
        let place = self.place();
        let own = self.result.as_ref().err().map(|error| (place.clone(), error));
        let nested = self.nested.iter().flatten().flat_map(Self::errors);
        own.into_iter().chain(nested.map(|(inner, error)| (format!("{place}, {inner}"), error))).collect()
    }

    fn place(&self) -> String {
        format!("action {} ({})", self.index, self.command)
    }
}

/// Where an action stands.
#[derive(Clone, Copy, Debug)]
struct Context {
    strictness: Strictness,
    /// Documents around it.
    depth: usize,
}

type Running<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl App {
    /// Reads and checks a document against the commands that there are now.
    ///
    /// # Errors
    ///
    /// Every fault. Leniently only those for which the seed refuses the whole of it.
    pub fn read(&self, text: &[u8], strictness: Strictness) -> Result<Document, Vec<Fault>> {
        script::read(text, strictness, &*self.commands())
    }

    /// Runs a document, action after action. Never fails as a whole.
    pub async fn execute(&self, document: &Document) -> Vec<Outcome> {
        for warning in &document.warnings {
            self.console.note(&format!("warning: {warning}"));
        }
        self.execute_at(document, 0).await
    }

    fn execute_at<'a>(&'a self, document: &'a Document, depth: usize) -> Running<'a, Vec<Outcome>> {
        Box::pin(async move {
            let context = Context { strictness: document.strictness, depth };
            let mut outcomes = Vec::with_capacity(document.actions.len());
            for action in &document.actions {
                let outcome = self.act(action, context).await;
                if let Err(error) = &outcome.result {
                    let help = error.help.as_ref().map(|help| format!("\n help: {help}")).unwrap_or_default();
                    self.console.error(&format!("error: {} failed: {error}{help}", outcome.place()));
                }
                outcomes.push(outcome);
            }
            outcomes
        })
    }

    async fn act(&self, action: &Action, context: Context) -> Outcome {
        let mut nested = Vec::new();
        let result = self.result_of(action, context, &mut nested).await;
        let Action { index, name, source, .. } = action;
        Outcome { index: *index, command: name.clone(), source: source.clone(), result, nested }
    }

    async fn result_of(
        &self,
        action: &Action,
        context: Context,
        nested: &mut Vec<Vec<Outcome>>,
    ) -> Result<Value, CommandError> {
        let commands = self.commands();
        let mut action = action.clone();
        if context.strictness == Strictness::Lenient {
            seed::prepare(&mut action, &commands);
        }
        if let Some(policy) = &self.caller().policy {
            let faults = policy.faults_of(&action, &commands);
            if !faults.is_empty() {
                return Err(refused("PermissionError", faults));
            }
        }
        let mut checker = Checker::new(&*commands);
        checker.action(&action);
        self.passed(checker.faults, context.strictness)?;
        match commands.find(&action.name) {
            Some(Found::Entry(entry)) => {
                let arguments = action.named(&entry.spec);
                match entry.nested() {
                    Some(kind) => self.documents(kind, &arguments, context, nested).await,
                    None => entry.run(arguments, self).await,
                }
            }
            Some(Found::Builtin(builtin)) => builtin.run(action.arguments, self),
            Some(Found::Outside(command)) => command.run(action.arguments, self).await,
            None => Err(CommandError::failed("KeyError", format!("unknown command `{}`", action.name))),
        }
    }

    /// Whether an action may run: what the seed passes over is a warning if it is to run as there.
    fn passed(&self, faults: Vec<Fault>, strictness: Strictness) -> Result<(), CommandError> {
        let lenient = strictness == Strictness::Lenient;
        let (passed, refusing): (Vec<_>, Vec<_>) = faults.into_iter().partition(|fault| lenient && fault.is_ignored());
        for fault in &passed {
            self.console.note(&format!("warning: {}", script::warning(fault)));
        }
        let raised = refusing.iter().find_map(|fault| match &fault.seed {
            Seed::Raises(class, text) => Some((*class, text.clone())),
            Seed::Unlike | Seed::Ignores | Seed::Records => None,
        });
        if refusing.is_empty() {
            return Ok(());
        }
        let class = raised.as_ref().map_or(EXECUTE_EXCEPTION, |(class, _)| class);
        let error = refused(class, refusing);
        Err(match raised {
            // our words become the remedy
            Some((_, text)) if lenient => {
                let help = error.help.map_or(error.message.clone(), |help| format!("{}: {help}", error.message));
                CommandError::failed(class, text).with_help(help)
            }
            _ => error,
        })
    }

    /// Runs documents within a document.
    async fn documents(
        &self,
        kind: Nested,
        arguments: &Map<String, Value>,
        context: Context,
        nested: &mut Vec<Vec<Outcome>>,
    ) -> Result<Value, CommandError> {
        if context.depth >= MOST_DEEP {
            let message =
                format!("maximum recursion depth exceeded: documents within documents, more than {MOST_DEEP} deep");
            return Err(CommandError::failed("RecursionError", message));
        }
        for order in kind.orders(arguments) {
            let document = order.read(context.strictness)?;
            if context.strictness == Strictness::Strict {
                let faults = script::check(&document, &*self.commands());
                if !faults.is_empty() {
                    return Err(refused(EXECUTE_EXCEPTION, faults));
                }
            }
            nested.push(self.execute_at(&document, context.depth + 1).await);
        }
        Ok(kind.result(nested.iter().map(|outcomes| Value::Object(records::map(outcomes))).collect()))
    }
}
