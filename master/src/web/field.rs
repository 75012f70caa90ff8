//! Values that callers give, in paths, queries and bodies: one description, from which they are read
//! and by which the `OpenAPI` document tells of them.

use super::problem::{Code, Problem};
use serde_json::{Map, Value, json};

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A text of 1 to so many characters, none of them a control character.
    Text(usize),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// true or false.
    Flag,
    /// A whole number of this span.
    Whole(u64, u64),
    /// A number of this span.
    Number(f64, f64),
}

/// A value that callers give.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
}

impl Field {
    pub(super) const fn new(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, about, kind, required: false }
    }

    pub(super) const fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

impl Kind {
    /// Its JSON Schema.
    pub(super) fn schema(self) -> Value {
        match self {
            Self::Text(most) => {
                json!({"type": "string", "minLength": 1, "maxLength": most, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"})
            }
            Self::OneOf(words) => json!({"type": "string", "enum": words}),
            Self::Flag => json!({"type": "boolean"}),
            Self::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
            Self::Number(least, most) => json!({"type": "number", "minimum": least, "maximum": most}),
        }
    }

    /// What is accepted, for people.
    fn accepted(self) -> String {
        match self {
            Self::Text(most) => format!("1 to {most} characters, none of them a control character"),
            Self::OneOf(words) => words.join(", "),
            Self::Flag => "true or false".into(),
            Self::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Self::Number(least, most) => format!("a number from {least} to {most}"),
        }
    }

    fn read_text(self, text: &str) -> Option<Value> {
        match self {
            Self::Text(_) | Self::OneOf(_) => self.read(&text.into()),
            Self::Flag => text.parse::<bool>().ok().map(Value::from),
            Self::Whole(..) => text.parse::<u64>().ok().and_then(|n| self.read(&n.into())),
            Self::Number(..) => text.parse::<f64>().ok().and_then(|n| self.read(&n.into())),
        }
    }

    /// The value in the form that it is asked for with; `None` if it is another one.
    fn read(self, value: &Value) -> Option<Value> {
        let fits = |most: usize| value.as_str().filter(|text| (1..=most).contains(&text.chars().count()));
        match self {
            Self::Text(most) => fits(most).filter(|text| !text.chars().any(char::is_control)).map(Value::from),
            Self::OneOf(words) => value.as_str().filter(|text| words.contains(text)).map(Value::from),
            Self::Flag => value.as_bool().map(Value::from),
            Self::Whole(least, most) => {
                // 5.0 is 5: JSON of other programs writes it so
                let float = || value.as_f64().filter(|f| f.fract() == 0.0 && (0.0..1e15).contains(f)).map(|f| f as u64);
                value.as_u64().or_else(float).filter(|n| (least..=most).contains(n)).map(Value::from)
            }
            Self::Number(least, most) => value.as_f64().filter(|n| (least..=most).contains(n)).map(Value::from),
        }
    }
}

/// Reads values that came as texts: of a path or a query. Where they stand is `place`.
pub(super) fn read_texts(
    fields: &[Field],
    given: &[(String, String)],
    place: &str,
) -> Result<Map<String, Value>, Problem> {
    let mut values = Map::new();
    for (name, text) in given {
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            return Err(unknown(name, fields, format!("#{place}/{name}")));
        };
        let value = field.kind.read_text(text).ok_or_else(|| bad(field, text, format!("#{place}/{name}")))?;
        if values.insert(name.clone(), value).is_some() {
            let problem = Problem::new(Code::BadValue, format!("`{name}` is given twice"));
            return Err(problem.at(format!("#{place}/{name}")).param("name", name.as_str()));
        }
    }
    complete(fields, values, &format!("#{place}"))
}

/// Reads values that came as a JSON object.
pub(super) fn read_object(fields: &[Field], body: &Value) -> Result<Map<String, Value>, Problem> {
    let Some(given) = body.as_object() else {
        return Err(Problem::new(Code::BadValue, "the body is a JSON object").at(""));
    };
    let mut values = Map::new();
    for (name, value) in given {
        let pointer = ld_shared::fault::step(name);
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            return Err(unknown(name, fields, pointer));
        };
        let value = field.kind.read(value).ok_or_else(|| bad(field, &value.to_string(), pointer))?;
        values.insert(name.clone(), value);
    }
    complete(fields, values, "")
}

fn complete(fields: &[Field], values: Map<String, Value>, place: &str) -> Result<Map<String, Value>, Problem> {
    match fields.iter().find(|field| field.required && !values.contains_key(field.name)) {
        None => Ok(values),
        Some(field) => {
            let problem = Problem::new(Code::BadValue, format!("`{}` is missing", field.name));
            Err(problem.help(format!("give {}", field.kind.accepted())).at(place).param("name", field.name))
        }
    }
}

fn unknown(name: &str, fields: &[Field], pointer: String) -> Problem {
    let help = ld_shared::fault::did_you_mean(name, fields.iter().map(|field| field.name));
    Problem::new(Code::BadValue, format!("unknown `{name}`")).help(help).at(pointer).param("name", name)
}

fn bad(field: &Field, seen: &str, pointer: String) -> Problem {
    let seen = format!(", found `{}`", crate::format::cut(seen, 80));
    let accepted = field.kind.accepted();
    let problem = Problem::new(Code::BadValue, format!("`{}` takes {accepted}{seen}", field.name));
    problem.at(pointer).param("name", field.name).param("accepted", accepted)
}

/// The parts of a query: names and values, decoded. `None` if it is not UTF-8.
pub(super) fn query(text: &str) -> Option<Vec<(String, String)>> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(name)?, decoded(value)?))
        })
        .collect()
}

/// `%41+` as it is meant: `A `. A percent sign that begins no escape stands for itself (WHATWG URL).
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let escape = (*first == b'%').then(|| more.get(..2).and_then(hex)).flatten();
        bytes.push(escape.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if escape.is_some() { &more[2..] } else { more };
    }
    String::from_utf8(bytes).ok()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(digits[at]).to_digit(16);
    Some((digit(0)? * 16 + digit(1)?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[
        Field::new("users", Kind::Whole(0, 1_000), "").required(),
        Field::new("name", Kind::Text(5), ""),
        Field::new("rate", Kind::Number(0.0, 1e9), ""),
        Field::new("lenient", Kind::Flag, ""),
    ];

    #[test]
    fn values_are_what_was_asked_for() {
        let read = |body: Value| read_object(FIELDS, &body).map_err(|problem| problem.code());
        assert_eq!(read(json!({"users": 5.0})), Ok(json!({"users": 5}).as_object().unwrap().clone()));
        for bad in [
            json!({}),
            json!([]),
            json!({"users": -1}),
            json!({"users": "5"}),
            json!({"users": 1.5}),
            json!({"users": 1_001}),
            json!({"users": null}),
            json!({"users": 1, "nmae": "x"}),
            json!({"users": 1, "name": "123456"}),
            json!({"users": 1, "name": "\u{1b}[1m"}),
            json!({"users": 1, "rate": 1e10}),
        ] {
            assert_eq!(read(bad.clone()), Err(Code::BadValue), "{bad}");
        }
    }

    #[test]
    fn queries_are_read_once_and_whole() {
        let read = |text: &str| read_texts(FIELDS, &query(text).unwrap(), "query").ok().map(Value::Object);
        assert_eq!(
            read("users=5&name=%61+%e4%bd%a0&lenient=true&"),
            Some(json!({"users": 5, "name": "a 你", "lenient": true}))
        );
        assert_eq!(read("users=5&rate=1e3"), Some(json!({"users": 5, "rate": 1000.0})));
        for bad in ["users=5&users=6", "", "users=", "users=5&lenient=1", "users=5&rate=NaN", "users=5&x=1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(query("a=%ff"), None);
        assert_eq!(query("a=100%"), Some(vec![("a".into(), "100%".into())]));
    }
}
