//! A document against the commands that there are.

use super::spec::{CommandSpec, Function, Kind, Signature, Vocabulary, shown};
use super::{Action, Arguments, Document, Fault, Strictness, absent, later, positional, seed};
use ld_shared::fault::{did_you_mean, nearest, step};
use serde_json::{Map, Value};

/// Documents may hold documents so deep.
pub(crate) const MOST_DEEP: usize = 16;
/// The command whose unknown arguments the seed accepts in silence.
const TAKES_ANYTHING: &str = "LD_start_test";
/// The command after which there may be names that nobody knows yet.
const ADDS_COMMANDS: &str = "LD_add_package_to_executor";

/// Every fault of a document against the commands that there are.
pub fn check(document: &Document, commands: &(impl Vocabulary + ?Sized)) -> Vec<Fault> {
    let mut checker = Checker::new(commands);
    document.actions.iter().for_each(|action| checker.action(action));
    checker.faults
}

/// Checks one action after another. Documents that stand in actions are checked as well.
pub struct Checker<'a, V: ?Sized> {
    commands: &'a V,
    /// An earlier action may have added commands: unknown names show when they run.
    open: bool,
    depth: usize,
    /// What was found.
    pub faults: Vec<Fault>,
}

impl<'a, V: Vocabulary + ?Sized> Checker<'a, V> {
    /// Has seen nothing yet.
    pub fn new(commands: &'a V) -> Self {
        Self { commands, open: false, depth: 0, faults: Vec::new() }
    }

    /// Checks the next action of the document.
    pub fn action(&mut self, action: &Action) {
        if let Some(fault) = &action.malformed {
            self.faults.push((**fault).clone());
            return;
        }
        match self.commands.signature(&action.name) {
            Some(Signature::Fixed(command)) => self.fixed(action, command),
            Some(Signature::Function(function)) => self.function(action, function),
            Some(Signature::Open) => {}
            None if self.open && !action.name.starts_with("LD_") => {}
            None => {
                let fault = unknown_command(action, self.commands);
                self.faults.push(fault.raised(seed::EXECUTE, seed::invalid_data(&action.source)));
            }
        }
        self.open |= action.name == ADDS_COMMANDS;
    }

    fn fixed(&mut self, action: &Action, command: &CommandSpec) {
        self.count(action, command);
        let arguments = action.named(command);
        let mut sound = Map::new();
        for (key, value) in &arguments {
            let pointer = action.argument_pointer(command, key);
            let Some(parameter) = command.parameters.iter().find(|parameter| parameter.name == key) else {
                self.faults.push(unknown_key(command, key, pointer));
                continue;
            };
            if !parameter.kind.accepts(value) {
                self.faults.push(wrong_kind(key, parameter.kind, value, pointer));
                continue;
            }
            sound.insert(key.clone(), value.clone());
            if parameter.kind == Kind::Document {
                self.nested(value, &pointer);
            }
        }
        let missing = command.parameters.iter().filter(|p| p.required && !arguments.contains_key(p.name));
        let missing: Vec<_> = missing.collect();
        let names: Vec<&str> = missing.iter().map(|parameter| parameter.name).collect();
        for parameter in missing {
            let message = format!("`{}` without `{}`", command.name, parameter.name);
            let help = format!("add `{}`: {}", parameter.name, parameter.kind.words());
            let fault = Fault::new(action.pointer.as_str(), message).help(help);
            self.faults.push(fault.raised("TypeError", seed::missing(command.name, &names)));
        }
        if let Some(deep) = command.check {
            let from = self.faults.len();
            let base = action.arguments_pointer();
            deep(&sound, &base, &mut self.faults);
            for fault in self.faults.iter_mut().skip(from) {
                // arguments by position have no names to point at
                let inside = fault.pointer.strip_prefix(&base).and_then(|rest| rest.strip_prefix('/'));
                let Some(rest) = inside else { continue };
                let (key, deeper) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                fault.pointer = format!("{}{deeper}", action.argument_pointer(command, key));
            }
        }
    }

    /// Notes arguments by position for which there is no parameter.
    fn count(&mut self, action: &Action, command: &CommandSpec) {
        let Arguments::Positional(values) = &action.arguments else { return };
        let (name, most) = (command.name, positional(command).count());
        if values.len() <= most {
            return;
        }
        let names: Vec<&str> = positional(command).map(|parameter| parameter.name).collect();
        let message = format!("`{name}` takes at most {most} arguments by position, found {}", values.len());
        let help = if most == 0 { "give them by name".into() } else { format!("their order: {}", names.join(", ")) };
        let least = positional(command).filter(|parameter| parameter.required).count();
        let fault = Fault::new(format!("{}/1/{most}", action.pointer), message).help(help);
        self.faults.push(fault.raised("TypeError", seed::too_many(name, least, most, values.len())));
    }

    fn function(&mut self, action: &Action, function: Function) {
        let Function { name, least, most, keywords } = function;
        let given = match &action.arguments {
            Arguments::None => 0,
            Arguments::Positional(values) => values.len(),
            Arguments::Named(map) => {
                for key in map.keys().filter(|key| !keywords.contains(&key.as_str())) {
                    let fault = Fault::new(
                        format!("{}{}", action.arguments_pointer(), step(key)),
                        format!("`{name}` takes no `{key}` by name"),
                    );
                    let help = format!("write [\"{name}\", [value, …]]");
                    self.faults.push(fault.help(help).raised("TypeError", seed::no_keyword(name, keywords, key)));
                }
                return;
            }
        };
        if !(least..=most).contains(&given) {
            let wanted = match (least, most) {
                (least, usize::MAX) => format!("at least {least}"),
                (least, most) if least == most => least.to_string(),
                (least, most) => format!("{least} to {most}"),
            };
            let message = format!("`{name}` takes {wanted} arguments, found {given}");
            let fault = Fault::new(action.pointer.as_str(), message);
            self.faults.push(fault.raised("TypeError", seed::arity(name, least, most, given)));
        }
    }

    /// A document that is an argument.
    fn nested(&mut self, value: &Value, pointer: &str) {
        if self.depth >= MOST_DEEP {
            let message = format!("documents within documents, more than {MOST_DEEP} deep");
            self.faults.push(Fault::new(pointer, message).raised("RecursionError", "maximum recursion depth exceeded"));
            return;
        }
        let document = match super::from_value(value, Strictness::Strict) {
            Ok(document) => document,
            Err(faults) => {
                // its actions are looked at as well, as far as they are any
                self.faults.extend(faults.into_iter().map(|fault| fault.under(pointer)));
                let Ok(document) = super::from_value(value, Strictness::Lenient) else { return };
                Document {
                    actions: document.actions.into_iter().filter(|action| action.malformed.is_none()).collect(),
                    ..document
                }
            }
        };
        self.depth += 1;
        for mut action in document.actions {
            action.pointer.insert_str(0, pointer);
            self.action(&action);
        }
        self.depth -= 1;
    }
}

impl Action {
    /// Where the argument of a parameter stands: by position it is a number.
    fn argument_pointer(&self, command: &CommandSpec, name: &str) -> String {
        let place = positional(command).position(|parameter| parameter.name == name);
        match (&self.arguments, place) {
            (Arguments::Positional(_), Some(place)) => format!("{}/1/{place}", self.pointer),
            _ => format!("{}/1{}", self.pointer, step(name)),
        }
    }
}

/// The fault of an action whose command there is not.
fn unknown_command(action: &Action, commands: &(impl Vocabulary + ?Sized)) -> Fault {
    let name = &action.name;
    let pointer = format!("{}/0", action.pointer);
    if let Some(reason) = commands.refusal(name) {
        return Fault::new(pointer, format!("`{name}` is no command: {reason}")).help("leave the action out");
    }
    if later::LATER.contains(&name.as_str()) {
        return Fault::new(pointer, format!("`{name}` comes with a later version")).help("leave the action out");
    }
    if let Some(fault) = absent::fault(&pointer, name) {
        return fault;
    }
    let names = commands.names();
    let help = match nearest(name, &names) {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!("accepted: {}", names.join(", ")),
    };
    Fault::new(pointer, format!("unknown command `{name}`")).help(help)
}

fn unknown_key(command: &CommandSpec, key: &str, pointer: String) -> Fault {
    let name = command.name;
    let known = command.parameters.iter().map(|parameter| parameter.name);
    let help = if command.parameters.is_empty() {
        format!("`{name}` takes no arguments")
    } else {
        did_you_mean(key, known.filter(|known| !is_later(command, known)))
    };
    let fault = Fault::new(pointer, format!("unknown key `{key}` of `{name}`")).help(help);
    if name == TAKES_ANYTHING {
        return fault.ignored();
    }
    fault.raised("TypeError", format!("{}() got an unexpected keyword argument '{key}'", seed::function(name)))
}

fn wrong_kind(key: &str, kind: Kind, value: &Value, pointer: String) -> Fault {
    if kind == Kind::Later {
        return Fault::new(pointer, format!("`{key}` comes with a later version")).help("leave it out").ignored();
    }
    let message = format!("`{key}` takes {}, found {}", kind.words(), shown(value));
    Fault::new(pointer, message.clone()).raised("TypeError", message)
}

fn is_later(command: &CommandSpec, name: &str) -> bool {
    command.parameters.iter().any(|parameter| parameter.name == name && parameter.kind == Kind::Later)
}
