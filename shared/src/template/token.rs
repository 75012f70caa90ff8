//! The grammar of placeholders: a text falls into literals and tokens.

/// A stretch of a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece<'a> {
    /// As it is.
    Literal(&'a str),
    /// From `${` to the first `}`.
    Token {
        /// The whole of it.
        raw: &'a str,
        /// What it says.
        token: Token<'a>,
    },
}

/// What stands between the braces.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Variable(&'a str),
    Env(&'a str),
    Column {
        source: &'a str,
        column: &'a str,
    },
    /// A method of [`super::faker`], known or not.
    Faker(&'a str),
    /// Held by the master, never in the plan.
    Secret(&'a str),
    Uuid,
    Now,
    /// Both ends included; the first is not the greater one.
    Between(i64, i64),
    /// Can never be filled in, and why.
    Fault(Box<str>),
    /// Of no known kind.
    Unknown,
}

/// The pieces of `text`, in order; joined they are the text.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    let mut token: Option<Piece<'_>> = None;
    std::iter::from_fn(move || {
        if let Some(token) = token.take() {
            return Some(token);
        }
        if rest.is_empty() {
            return None;
        }
        let Some((literal, raw, after)) = next_token(rest) else {
            return Some(Piece::Literal(std::mem::take(&mut rest)));
        };
        rest = after;
        let inner = raw.strip_prefix("${").and_then(|raw| raw.strip_suffix('}')).unwrap_or_default();
        let found = Piece::Token { raw, token: read(inner.trim()) };
        if literal.is_empty() {
            return Some(found);
        }
        token = Some(found);
        Some(Piece::Literal(literal))
    })
}

/// What stands before the first token, the token, and what follows it.
fn next_token(text: &str) -> Option<(&str, &str, &str)> {
    let (before, from) = text.split_at(text.find("${")?);
    let (raw, after) = from.split_at(from.find('}')? + 1);
    Some((before, raw, after))
}

fn read(inner: &str) -> Token<'_> {
    if let Some((name, arguments)) = call(inner) {
        return match name.to_ascii_lowercase().as_str() {
            "uuid" => Token::Uuid,
            "now" => Token::Now,
            "randint" => between(arguments),
            _ => Token::Unknown,
        };
    }
    let Some((prefix, name)) = inner.split_once('.') else {
        return if inner.is_empty() { Token::Unknown } else { Token::Variable(inner) };
    };
    match prefix.to_ascii_lowercase().as_str() {
        // the seed keeps variables of both scopes apart; here a user has one set
        "var" | "session" => Token::Variable(name),
        "faker" => Token::Faker(name),
        "secret" => Token::Secret(name),
        "env" => Token::Env(name),
        "csv" => match name.split_once('.') {
            Some((source, column)) => Token::Column { source, column },
            None => Token::Unknown,
        },
        _ => Token::Unknown,
    }
}

/// `name(arguments)`.
fn call(inner: &str) -> Option<(&str, &str)> {
    let (name, arguments) = inner.strip_suffix(')')?.split_once('(')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name.then_some((name, arguments))
}

fn between(arguments: &str) -> Token<'_> {
    let Some((low, high)) = arguments.split_once(',').filter(|(_, high)| !high.contains(',')) else {
        return Token::Unknown;
    };
    let number = |text: &str| {
        let text = text.trim();
        text.parse::<i64>().map_err(|_| Token::Fault(format!("randint: `{text}` is not a whole number").into()))
    };
    match (number(low), number(high)) {
        (Ok(low), Ok(high)) if low <= high => Token::Between(low, high),
        (Ok(low), Ok(high)) => {
            Token::Fault(format!("randint: {low} is above {high}; the lower end comes first").into())
        }
        (Err(fault), _) | (_, Err(fault)) => fault,
    }
}
