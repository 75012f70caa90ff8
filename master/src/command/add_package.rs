//! `LD_add_package_to_executor`: commands from a program in any language, or from a Python package.

use super::{Command, CommandError, Outside, Resume};
use crate::app::App;
use crate::package::{Launch, Limits, Package, PackageError};
use crate::script::{Arguments, CommandSpec, Kind, Parameter};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Runs Python packages.
const PYTHON: &str = "python3";

/// Starts a package and adds its commands.
#[derive(Deserialize)]
pub(super) struct AddPackage {
    package: String,
    #[serde(default)]
    timeout: Option<f64>,
    #[serde(default)]
    optional: bool,
}

impl Command for AddPackage {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_add_package_to_executor",
        parameters: &[
            Parameter::new("package", Kind::Text).required(),
            Parameter::new("timeout", Kind::OrNull(&Kind::Number)).keyword(),
            Parameter::new("optional", Kind::Boolean).keyword(),
        ],
        check: None,
    };
    const ABOUT: &'static str =
        "Adds the commands of a package: an executable that speaks JSON lines, or an importable Python package";
    const RESUME: Resume = Resume::Replay;
    const OPEN: bool = false;
    type Output = ();

    async fn run(self, app: &App) -> Result<(), CommandError> {
        match self.add(app).await {
            Err(error) if self.optional => {
                app.console.note(&format!("warning: {error}"));
                Ok(())
            }
            outcome => outcome,
        }
    }
}

impl AddPackage {
    async fn add(&self, app: &App) -> Result<(), CommandError> {
        let mut limits = Limits::default();
        if let Some(seconds) = self.timeout {
            limits.answer_within =
                Duration::try_from_secs_f64(seconds).ok().filter(|d| !d.is_zero()).ok_or_else(|| {
                    CommandError::failed("ValueError", format!("`timeout` is a time above 0, found {seconds}"))
                })?;
        }
        let python = crate::cli::environment("LD_PYTHON").unwrap_or_else(|| PYTHON.into());
        let launch = Launch::of(&self.package, &python).map_err(failed)?;
        let (package, commands) = Package::start(launch, limits).await.map_err(failed)?;
        let package = Arc::new(package);
        for described in commands {
            let (package, name) = (Arc::clone(&package), described.name.clone());
            let origin = format!("the package `{}`", package.name());
            let command = Outside::new(described.about, origin, move |arguments, _app| {
                let (package, name) = (Arc::clone(&package), name.clone());
                Box::pin(async move { package.call(&name, &plain(arguments)).await.map_err(failed) })
            });
            // one name that is taken does not cost the others
            if let Err(error) = app.register_outside(described.name, command) {
                app.console.note(&format!("warning: {error}; it is left out"));
            }
        }
        Ok(())
    }
}

/// Arguments as packages get them.
fn plain(arguments: Arguments) -> Value {
    match arguments {
        Arguments::None => Value::Object(serde_json::Map::new()),
        Arguments::Named(map) => Value::Object(map),
        Arguments::Positional(values) => Value::Array(values),
    }
}

fn failed(error: PackageError) -> CommandError {
    match error {
        PackageError::Said { kind, message } => CommandError::failed(kind, message),
        error @ (PackageError::NoSuchFile(_) | PackageError::NotExecutable(_)) => {
            CommandError::of("ModuleNotFoundError", &error)
                .with_help("give the path of an executable file, or the name of a package that Python can import")
        }
        error => CommandError::of("LoadDensityTestExecuteException", &error),
    }
}
