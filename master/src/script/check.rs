//! A document against the commands that there are.

use super::spec::{CommandSpec, Kind, shown};
use super::{Action, Arguments, Document, Fault, absent, later, positional};
use ld_shared::fault::{did_you_mean, nearest, step};
use serde_json::Map;

/// Every fault of a document against the commands that there are.
pub fn check(document: &Document, commands: &[CommandSpec]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for action in &document.actions {
        match commands.iter().find(|command| command.name == action.name) {
            Some(command) => check_action(action, command, &mut faults),
            None => faults.push(unknown_command(action, commands)),
        }
    }
    faults
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

fn unknown_command(action: &Action, commands: &[CommandSpec]) -> Fault {
    let name = &action.name;
    let pointer = format!("{}/0", action.pointer);
    if later::LATER.contains(&name.as_str()) {
        return Fault::new(pointer, format!("`{name}` comes with a later version")).help("leave the action out");
    }
    if let Some(fault) = absent::fault(&pointer, name) {
        return fault;
    }
    let names: Vec<&str> = commands.iter().map(|command| command.name).collect();
    let help = match nearest(name, &names) {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!("accepted: {}", names.join(", ")),
    };
    Fault::new(pointer, format!("unknown command `{name}`")).help(help)
}

fn check_action(action: &Action, command: &CommandSpec, faults: &mut Vec<Fault>) {
    let name = command.name;
    if let Arguments::Positional(values) = &action.arguments {
        let most = positional(command).count();
        if values.len() > most {
            let names: Vec<&str> = positional(command).map(|parameter| parameter.name).collect();
            let message = format!("`{name}` takes at most {most} arguments by position, found {}", values.len());
            let help =
                if most == 0 { "give them by name".into() } else { format!("their order: {}", names.join(", ")) };
            faults.push(Fault::new(format!("{}/1/{most}", action.pointer), message).help(help));
        }
    }
    let arguments = action.named(command);
    let mut sound = Map::new();
    for (key, value) in &arguments {
        let pointer = action.argument_pointer(command, key);
        let Some(parameter) = command.parameters.iter().find(|parameter| parameter.name == key) else {
            let known = command.parameters.iter().map(|parameter| parameter.name);
            let help = if command.parameters.is_empty() {
                format!("`{name}` takes no arguments")
            } else {
                did_you_mean(key, known.filter(|known| !is_later(command, known)))
            };
            faults.push(Fault::new(pointer, format!("unknown key `{key}` of `{name}`")).help(help));
            continue;
        };
        if parameter.kind.accepts(value) {
            sound.insert(key.clone(), value.clone());
        } else if parameter.kind == Kind::Later {
            faults.push(Fault::new(pointer, format!("`{key}` comes with a later version")).help("leave it out"));
        } else {
            let words = parameter.kind.words();
            faults.push(Fault::new(pointer, format!("`{key}` takes {words}, found {}", shown(value))));
        }
    }
    for parameter in command.parameters.iter().filter(|p| p.required && !arguments.contains_key(p.name)) {
        let message = format!("`{name}` without `{}`", parameter.name);
        let help = format!("add `{}`: {}", parameter.name, parameter.kind.words());
        faults.push(Fault::new(action.pointer.as_str(), message).help(help));
    }
    if let Some(deep) = command.check {
        let from = faults.len();
        let base = action.arguments_pointer();
        deep(&sound, &base, faults);
        for fault in faults.iter_mut().skip(from) {
            // arguments by position have no names to point at
            let inside = fault.pointer.strip_prefix(&base).and_then(|rest| rest.strip_prefix('/'));
            let Some(rest) = inside else { continue };
            let (key, deeper) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            fault.pointer = format!("{}{deeper}", action.argument_pointer(command, key));
        }
    }
}

fn is_later(command: &CommandSpec, name: &str) -> bool {
    command.parameters.iter().any(|parameter| parameter.name == name && parameter.kind == Kind::Later)
}
