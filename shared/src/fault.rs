//! What is wrong with a document, found before anything runs.

use std::fmt::{self, Display, Formatter};

/// One fault of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) from the value that was looked at, at the end from the document's
    /// root: `/load_density/1/1/tasks/0/method`. Empty: the whole of it.
    pub pointer: String,
    /// What was seen and what would be accepted: a lowercase fragment without final dot.
    pub message: String,
    /// The remedy, if there is an obvious one: "did you mean `sendrecv`?".
    pub help: Option<String>,
    /// What the seed makes of it, for documents that are to run as there.
    pub seed: Seed,
}

/// What the seed, whose documents this program runs, makes of a fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seed {
    /// Nothing that is worth following.
    #[default]
    Unlike,
    /// It passes over it: whoever found the fault goes on with what the seed goes on with.
    Ignores,
    /// It finds it out when the step's turn comes, and records it as failed each time.
    Records,
    /// The action fails with an error of this class and text.
    Raises(&'static str, String),
}

impl Fault {
    /// A fault of what `pointer` points at.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into(), help: None, seed: Seed::Unlike }
    }

    /// With a remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A fault that the seed passes over.
    #[must_use]
    pub fn ignored(mut self) -> Self {
        self.seed = Seed::Ignores;
        self
    }

    /// A fault for which the seed fails the action, with that class of error and text.
    #[must_use]
    pub fn raised(mut self, class: &'static str, text: impl Into<String>) -> Self {
        self.seed = Seed::Raises(class, text.into());
        self
    }

    /// A fault of a step that the seed records as failed.
    #[must_use]
    pub fn recorded(mut self) -> Self {
        self.seed = Seed::Records;
        self
    }

    /// Whether the test runs in spite of it, as the seed's would.
    pub fn is_ignored(&self) -> bool {
        matches!(self.seed, Seed::Ignores | Seed::Records)
    }

    /// The same fault seen from further up: `prefix` is put before its pointer.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }
}

/// `error: MESSAGE at POINTER` and, on a line of its own, ` help: HELP`.
impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if !self.pointer.is_empty() {
            write!(f, " at {}", self.pointer)?;
        }
        match &self.help {
            Some(help) => write!(f, "\n help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

/// `key` as one step of a JSON pointer: `/` and what stands for it escaped.
pub fn step(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// A remedy for a name that is not among `accepted`: the nearest one if it looks like a slip, and
/// the list of all.
pub fn did_you_mean<'a>(name: &str, accepted: impl IntoIterator<Item = &'a str>) -> String {
    let accepted: Vec<&str> = accepted.into_iter().collect();
    let all = if accepted.is_empty() { "nothing".to_owned() } else { accepted.join(", ") };
    match nearest(name, &accepted) {
        Some(best) => format!("did you mean `{best}`? accepted: {all}"),
        None => format!("accepted: {all}"),
    }
}

/// The one of `accepted` that `name` is most probably meant to be, if any.
pub fn nearest<'a>(name: &str, accepted: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    let closeness = |known: &str| strsim::jaro_winkler(&name, &known.to_lowercase());
    let best = accepted.iter().map(|&known| (closeness(known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(closeness, _)| *closeness > 0.8).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_where_and_how_to_mend_it() {
        let help = did_you_mean("sendrec", ["connect", "send", "recv", "sendrecv", "close"]);
        let fault = Fault::new("/tasks/0/method", "unknown method `sendrec` for websocket_user").help(help);
        assert_eq!(
            fault.under("/load_density/1/1").to_string(),
            "error: unknown method `sendrec` for websocket_user at /load_density/1/1/tasks/0/method\n \
             help: did you mean `sendrecv`? accepted: connect, send, recv, sendrecv, close"
        );
        assert_eq!(did_you_mean("zzz", ["connect", "send"]), "accepted: connect, send");
        assert_eq!(step("a/b~c"), "/a~1b~0c");
    }
}
