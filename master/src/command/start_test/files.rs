//! Files that a document names.

use crate::remote::Policy;
use std::path::{Path, PathBuf};

/// Where files of a document are, and which of them it may name.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    base: &'a Path,
    policy: Option<&'a Policy>,
}

impl<'a> Files<'a> {
    /// All that whoever started the process can read; relative paths start at `base`.
    pub fn of_the_user(base: &'a Path) -> Self {
        Self { base, policy: None }
    }

    /// Those of the working folder that `policy` allows.
    pub fn of_a_caller(policy: Option<&'a Policy>) -> Self {
        Self { base: Path::new(""), policy }
    }

    /// Where a file is; why it may not be named.
    pub fn place(&self, path: &str) -> Result<PathBuf, String> {
        self.policy.map_or(Ok(()), |policy| policy.file(path))?;
        Ok(self.base.join(path))
    }
}
