//! `LD_register_csv_source`, `LD_register_csv_sources`: what `${csv.NAME.COLUMN}` gives.

use super::{Command, CommandError, Resume, refused};
use crate::app::App;
use crate::command::start_test::CsvOrder;
use crate::script::{CommandSpec, Kind, Parameter};
use ld_shared::fault::Fault;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Registers one data source. The file is read at once; registering again starts at its first row.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct RegisterCsvSource(Map<String, Value>);

impl Command for RegisterCsvSource {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_register_csv_source",
        parameters: &[
            Parameter::new("name", Kind::Text).required(),
            Parameter::new("file_path", Kind::Text).required().file(),
            Parameter::new("cycle", Kind::Boolean),
            Parameter::new("unique", Kind::Boolean).keyword(),
            Parameter::new("at_end", Kind::Text).keyword(),
        ],
        check: Some(|arguments, pointer, faults| {
            CsvOrder::read(&Value::Object(arguments.clone()), pointer, faults);
        }),
    };
    const ABOUT: &'static str = "Registers a CSV file as a data source: ${csv.NAME.COLUMN} in the tasks of later tests";
    const RESUME: Resume = Resume::Replay;
    type Output = ();

    async fn run(self, app: &App) -> Result<(), CommandError> {
        register(&Value::Object(self.0), "", app)
    }
}

/// Registers several.
#[derive(Deserialize)]
pub(super) struct RegisterCsvSources {
    sources: Vec<Value>,
}

impl Command for RegisterCsvSources {
    const SPEC: CommandSpec = CommandSpec {
        name: "LD_register_csv_sources",
        parameters: &[Parameter::new("sources", Kind::List).required()],
        check: Some(|arguments, pointer, faults| {
            let sources = arguments.get("sources").and_then(Value::as_array).into_iter().flatten();
            for (i, source) in sources.enumerate() {
                CsvOrder::read(source, &format!("{pointer}/sources/{i}"), faults);
            }
        }),
    };
    const ABOUT: &'static str = "Registers several CSV files as data sources";
    const RESUME: Resume = Resume::Replay;
    type Output = ();

    async fn run(self, app: &App) -> Result<(), CommandError> {
        let mut sources = self.sources.iter().enumerate();
        sources.try_for_each(|(i, source)| register(source, &format!("/sources/{i}"), app))
    }
}

fn register(source: &Value, pointer: &str, app: &App) -> Result<(), CommandError> {
    let mut faults: Vec<Fault> = Vec::new();
    let order = CsvOrder::read(source, pointer, &mut faults).ok_or_else(|| refused("ValueError", faults))?;
    let source = order.load(&app.files()).map_err(|fault| refused("FileNotFoundError", vec![fault]))?;
    app.state().sources.insert(source.name.to_string(), source);
    Ok(())
}
