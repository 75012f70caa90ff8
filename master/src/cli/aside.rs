//! What the binary does beside testing: answers for a container, and what comes with a release.

use super::{Global, Web, web};
use crate::console::Console;
use crate::run::verdict::exit;
use clap::Args;
use ld_worker::healthcheck::Question;
use std::io;
use std::path::PathBuf;

/// `healthcheck`.
pub(super) fn healthcheck(global: &Global, console: &Console, question: &Question) -> u8 {
    let web = match global.web {
        None => Some(web::DEFAULT),
        Some(Web::At(web)) => Some(web),
        Some(Web::Off) => None,
    };
    match question.ask(web) {
        Ok(text) => {
            console.lines(&format!("{text}\n"));
            exit::PASSED
        }
        Err(text) => {
            console.error(&text);
            exit::FAILED
        }
    }
}

/// The exit code of something that only writes.
pub(super) fn written(console: &Console, result: io::Result<()>) -> u8 {
    match result {
        Ok(()) => exit::PASSED,
        Err(error) => {
            console.error(&format!("error: {error}"));
            exit::NOT_RUN
        }
    }
}

/// `prepare-dir DIR --owner UID[:GID]`.
#[derive(Args, Debug)]
pub(super) struct PrepareDir {
    /// The folder, made if it is missing
    dir: PathBuf,
    /// Whose it is to be
    #[arg(long, value_name = "UID[:GID]", value_parser = owner)]
    owner: (u32, u32),
}

impl PrepareDir {
    /// Makes it and gives it away; what lies in it stays as it is.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let fault = |what: &str, error: io::Error| {
            io::Error::other(format!("cannot {what} `{}`: {}", self.dir.display(), error.to_string().to_lowercase()))
        };
        std::fs::create_dir_all(&self.dir).map_err(|error| fault("make", error))?;
        #[cfg(unix)]
        std::os::unix::fs::chown(&self.dir, Some(self.owner.0), Some(self.owner.1))
            .map_err(|error| fault("give away", error))?;
        Ok(())
    }
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    let pair = user.parse().ok().zip(group.parse().ok());
    pair.ok_or_else(|| "numbers like 65532 or 1000:1000 are accepted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_numbers() {
        assert_eq!(owner("65532"), Ok((65_532, 65_532)));
        assert_eq!(owner("1000:100"), Ok((1_000, 100)));
        for bad in ["", "root", "1:", "1:2:3", "-1"] {
            assert!(owner(bad).is_err(), "{bad}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_is_made_and_stays_ones_own() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let me = std::fs::metadata(folder.path()).unwrap();
        let dir = folder.path().join("a/b");
        for _ in 0..2 {
            PrepareDir { dir: dir.clone(), owner: (me.uid(), me.gid()) }.prepare().unwrap();
        }
        assert_eq!(std::fs::metadata(&dir).unwrap().uid(), me.uid());
    }
}
