//! Functions of Python that documents may call: `["len", [[1, 2]]]`.
//!
//! The seed's newest release lets its documents call the harmless ones of Python's builtin
//! functions; this is a table of the same, with Python's results and errors on what JSON can say.
//! Python's integers have no bounds, those here 64 bits: beyond them is an `OverflowError`.
//! Beyond Python, what is called `iterable` there may be given by that name, since an action has
//! arguments by position or by name, never both.

mod compare;
mod format;
mod number;
mod sequence;
mod text;

use super::CommandError;
use crate::app::App;
use crate::script::spec::Function;
use crate::script::{Arguments, type_name};
use serde_json::{Map, Value};

/// A function of the table.
pub struct Builtin {
    /// Its name and what it takes.
    pub function: Function,
    /// What it does.
    pub about: &'static str,
    work: Work,
}

#[derive(Clone, Copy)]
enum Work {
    Pure(fn(&Given) -> Answer),
    Print,
}

/// A value, or Python's error.
type Answer = Result<Value, CommandError>;

/// What a function is given: its parameters by their place, then by name.
struct Given {
    name: &'static str,
    values: Vec<Value>,
    named: Map<String, Value>,
}

/// A line of the table; `names` are those of its parameters in their order, as far as they have any.
const fn line(
    name: &'static str,
    (least, most): (usize, usize),
    keywords: &'static [&'static str],
    about: &'static str,
    work: fn(&Given) -> Answer,
) -> Builtin {
    Builtin { function: Function { name, least, most, keywords }, about, work: Work::Pure(work) }
}

/// As many arguments as one likes.
const ANY: usize = usize::MAX;

/// All of them, by name.
pub const BUILTINS: &[Builtin] = &[
    line("abs", (1, 1), &[], "Absolute value of a number", number::abs),
    line("all", (1, 1), &[], "Whether all elements are true", sequence::all),
    line("any", (1, 1), &[], "Whether any element is true", sequence::any),
    line("ascii", (1, 1), &[], "A value in Python notation, ASCII only", text::ascii),
    line("bin", (1, 1), &[], "A whole number in binary", number::bin),
    line("callable", (1, 1), &[], "Whether a value can be called: never", text::callable),
    line("chr", (1, 1), &[], "The character of a code point", text::chr),
    line("divmod", (2, 2), &[], "Quotient and remainder", number::divmod),
    line("format", (1, 2), &[], "A value as text by a format specification", format::format),
    line("hash", (1, 1), &[], "A number that equal values share", number::hash),
    line("hex", (1, 1), &[], "A whole number in hexadecimal", number::hex),
    line("len", (1, 1), &[], "Number of elements or characters", sequence::len),
    line("max", (1, ANY), &["iterable", "default"], "The greatest element or argument", sequence::max),
    line("min", (1, ANY), &["iterable", "default"], "The least element or argument", sequence::min),
    line("oct", (1, 1), &[], "A whole number in octal", number::oct),
    line("ord", (1, 1), &[], "The code point of a character", text::ord),
    line("pow", (2, 3), &["base", "exp", "mod"], "A power, with a third argument modulo it", number::pow),
    Builtin {
        function: Function { name: "print", least: 0, most: ANY, keywords: &["sep", "end", "flush"] },
        about: "Prints values",
        work: Work::Print,
    },
    line("range", (1, 3), &[], "Whole numbers from a start to before a stop, as a list", sequence::range),
    line("repr", (1, 1), &[], "A value in Python notation", text::repr),
    line("round", (1, 2), &["number", "ndigits"], "A number rounded, halves to even", number::round),
    line("sorted", (1, 1), &["iterable", "reverse"], "The elements in order, as a list", sequence::sorted),
    line("sum", (1, 2), &["iterable", "start"], "The sum of the elements", sequence::sum),
];

/// Functions of Python that are no commands, and why. The first sixteen were commands of the seed
/// until its newest release took them away.
const REFUSED: &[(&str, &str)] = &[
    ("__build_class__", CODE),
    ("aiter", OBJECTS),
    ("anext", OBJECTS),
    ("delattr", INSIDE),
    ("dir", INSIDE),
    ("getattr", INSIDE),
    ("globals", INSIDE),
    ("hasattr", INSIDE),
    ("id", OBJECTS),
    ("isinstance", OBJECTS),
    ("issubclass", OBJECTS),
    ("iter", OBJECTS),
    ("locals", INSIDE),
    ("next", OBJECTS),
    ("setattr", INSIDE),
    ("vars", INSIDE),
    ("__import__", CODE),
    ("breakpoint", CODE),
    ("compile", CODE),
    ("eval", CODE),
    ("exec", CODE),
    ("exit", "it would end the program in the middle of a document"),
    ("input", "nobody is asked while a document runs"),
    ("open", "it opens any file: documents read and write files by the commands made for it"),
    ("quit", "it would end the program in the middle of a document"),
];
const CODE: &str = "it runs any code: documents come from others";
const INSIDE: &str = "it reaches into the running program";
const OBJECTS: &str = "it is about objects of a Python program, and documents have only JSON values";

/// The function of that name.
pub fn find(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|builtin| builtin.function.name == name)
}

/// Why a function of Python is no command.
pub fn refusal(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, reason)| *reason)
}

impl Builtin {
    /// Calls it.
    pub fn run(&self, arguments: Arguments, app: &App) -> Answer {
        let (values, named) = match arguments {
            Arguments::None => (Vec::new(), Map::new()),
            Arguments::Positional(values) => (values, Map::new()),
            Arguments::Named(named) => (Vec::new(), named),
        };
        let given = Given { name: self.function.name, values, named };
        match self.work {
            Work::Pure(work) => work(&given),
            Work::Print => text::print(&given, app),
        }
    }
}

impl Given {
    /// The argument at a place, or by name.
    fn get(&self, place: usize, name: &str) -> Option<&Value> {
        self.values.get(place).or_else(|| self.named.get(name))
    }

    /// The same, which must be there.
    fn must(&self, place: usize, name: &str) -> Result<&Value, CommandError> {
        self.get(place, name).ok_or_else(|| {
            type_error(format!("{}() missing required argument '{name}' (pos {})", self.name, place + 1))
        })
    }

    /// The first argument.
    fn first(&self) -> Result<&Value, CommandError> {
        self.must(0, "iterable")
    }
}

fn type_error(message: impl Into<String>) -> CommandError {
    CommandError::failed("TypeError", message)
}

fn value_error(message: impl Into<String>) -> CommandError {
    CommandError::failed("ValueError", message)
}

fn overflow(message: impl Into<String>) -> CommandError {
    CommandError::failed("OverflowError", message)
}

/// Python's error for operands of an operator.
fn operands(operator: &str, a: &Value, b: &Value) -> CommandError {
    type_error(format!("unsupported operand type(s) for {operator}: '{}' and '{}'", type_name(a), type_name(b)))
}

#[cfg(test)]
mod tests;
