//! Where people read: results on stdout, everything else on stderr.
//!
//! Whoever reads may be gone (`ld-master … | head`): that ends no test, so write errors are dropped.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Mutex;

/// The process's stdout and stderr.
#[derive(Debug)]
pub struct Console {
    terminal: bool,
    quiet: bool,
    /// What goes to stdout beside lines for programs.
    tables: Tables,
    /// A live line stands on the terminal.
    line: Mutex<bool>,
}

/// Where tables for people go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tables {
    Stdout,
    Stderr,
    Nowhere,
}

impl Console {
    /// `quiet`: neither live line nor notes.
    pub fn new(quiet: bool) -> Self {
        Self { terminal: io::stderr().is_terminal(), quiet, tables: Tables::Stdout, line: Mutex::new(false) }
    }

    /// Says nothing at all.
    pub fn silent() -> Self {
        Self { terminal: false, quiet: true, tables: Tables::Nowhere, line: Mutex::new(false) }
    }

    /// The same, but stdout is for [`Self::lines`]: tables go to stderr.
    #[must_use]
    pub fn with_lines_on_stdout(self) -> Self {
        Self { tables: Tables::Stderr, ..self }
    }

    /// Whether a line can be rewritten.
    pub fn is_terminal(&self) -> bool {
        self.terminal && !self.quiet
    }

    /// Columns of the terminal; 80 elsewhere.
    pub fn width(&self) -> usize {
        columns().filter(|_| self.terminal).unwrap_or(80)
    }

    /// A table or a finding for people, on stdout.
    pub fn print(&self, text: &str) {
        self.clear_line();
        match self.tables {
            Tables::Stdout => self.lines(text),
            Tables::Stderr => drop(io::stderr().lock().write_all(text.as_bytes())),
            Tables::Nowhere => {}
        }
    }

    /// Lines for programs, on stdout.
    pub fn lines(&self, text: &str) {
        self.clear_line();
        let mut out = io::stdout().lock();
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }

    /// A sentence, on stderr.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.error(text);
        }
    }

    /// Sentences, on stderr.
    pub fn notes(&self, texts: &[String]) {
        for text in texts {
            self.note(text);
        }
    }

    /// A sentence that must be read, on stderr.
    pub fn error(&self, text: &str) {
        self.clear_line();
        if self.tables == Tables::Nowhere {
            return;
        }
        drop(writeln!(io::stderr().lock(), "{text}"));
    }

    /// Rewrites the live line.
    pub fn live(&self, text: &str) {
        if self.is_terminal() {
            *self.standing() = true;
            let mut out = io::stderr().lock();
            drop(write!(out, "\r{text}\x1b[K").and_then(|()| out.flush()));
        }
    }

    /// Takes the live line away, if there is one.
    pub fn clear_line(&self) {
        if std::mem::take(&mut *self.standing()) {
            drop(write!(io::stderr().lock(), "\r\x1b[K"));
        }
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, bool> {
        self.line.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(unix)]
fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

#[cfg(not(unix))]
fn columns() -> Option<usize> {
    None
}
