//! What comes with a release beside a binary, made from its command line: completions and man pages.

use clap::{Args, Command};
use clap_complete::Shell;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// `completions SHELL`.
#[derive(Args, Clone, Debug)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

/// `man-pages DIR`.
#[derive(Args, Clone, Debug)]
pub struct ManPages {
    /// Their folder, made if it is missing
    dir: PathBuf,
}

impl Completions {
    /// Prints the script.
    pub fn print(&self, mut command: Command) -> io::Result<()> {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        io::stdout().lock().write_all(&script)
    }
}

impl ManPages {
    /// Writes one page for the program and one for each of its subcommands.
    pub fn write(&self, command: Command) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        // flags for all subcommands stand on the program's page
        clap_mangen::generate_to(command.disable_help_subcommand(true), Path::new(&self.dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_subcommand() {
        let folder = std::env::temp_dir().join(format!("ld-man-{}", std::process::id()));
        let command = Command::new("prog").subcommand(Command::new("sub").about("what it does"));
        ManPages { dir: folder.clone() }.write(command).unwrap();
        let page = std::fs::read_to_string(folder.join("prog-sub.1")).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        assert!(page.contains("what it does"), "{page}");
    }
}
