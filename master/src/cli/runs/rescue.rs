//! `runs rescue`: results of runs whose master was killed.

use super::{Fault, listed};
use crate::cli::{Global, ReportFiles};
use crate::command::with_causes;
use crate::console::Console;
use crate::format;
use crate::journal::{Folder, Found, JournalError, Recovered, rescue};
use crate::report::{self, Findings};
use crate::run::Run;
use crate::run::result::RunResult;
use crate::run::verdict::exit;
use crate::store::Found as InStore;
use crate::store::history::History;
use crate::table;
use ld_shared::boot::clock;
use ld_shared::id::RunId;
use std::fmt::Write as _;
use std::sync::Arc;

/// Lists journals, or makes a result of one. Returns the exit code.
pub(super) async fn run(
    global: &Global,
    console: &Console,
    run: Option<&str>,
    files: &ReportFiles,
) -> Result<u8, Fault> {
    let history = global
        .history()
        .ok_or_else(|| Fault::Input("no journals: neither HOME nor --data-dir says where runs are kept".into()))?;
    let journals = history.journals();
    let found = journals.journals().map_err(|error| fault(&error))?;
    let Some(name) = run else {
        if files.summary.is_some() || files.html.is_some() {
            return Err(Fault::Input("reports of which run? Name it, or `latest`".into()));
        }
        console.print(&Box::pin(list(&journals, &found)).await);
        return Ok(exit::PASSED);
    };
    let run = chosen(name, &found)?;
    let unfinished = Box::pin(journals.open(&run)).await.map_err(|error| fault(&error))?;
    if let Some(number) = kept(&history, &run).await? {
        remove(Box::pin(unfinished.remove()).await, console);
        console.note(&format!("its result is kept already as run {number}: ld-master runs show {number}"));
        return Ok(exit::PASSED);
    }
    let Some(result) = rescue::result(unfinished.recovered.clone(), unfinished.incomplete) else {
        remove(Box::pin(unfinished.remove()).await, console);
        console.note(&format!("the run {run} had not begun: there is no result, and its journal is removed"));
        return Ok(exit::PASSED);
    };
    match show(console, &history, result, files).await {
        Ok(()) => {
            remove(Box::pin(unfinished.remove()).await, console);
            Ok(exit::PASSED)
        }
        Err(why) => {
            Box::pin(unfinished.close()).await;
            console.error(&format!("error: {why}; the journal stays as it is"));
            Ok(exit::NOT_RUN)
        }
    }
}

/// Prints, keeps and reports a result. The error says what could not be done.
async fn show(console: &Console, history: &History, run: Run, files: &ReportFiles) -> Result<(), String> {
    let run = Arc::new(run);
    let result = RunResult::of(std::slice::from_ref(&run), run.verdict.clone());
    console.print(&table::end_table(&result, console.width()));
    let findings = Findings { result, runs: vec![Arc::clone(&run)] };
    for (format, path) in [("html", &files.html), ("summary", &files.summary)] {
        let Some(path) = path else { continue };
        let line = report::named(format).expect("the table has these formats");
        line.write_to(&findings, path).map_err(|error| with_causes(&error))?;
        console.note(&format!("wrote {}", path.display()));
    }
    let number = history.save(&run).await.map_err(|error| error.to_string())?;
    console.note(&format!("kept as run {number}: ld-master runs show {number}"));
    Ok(())
}

/// The number under which the run's result is kept, if its master came to that.
async fn kept(history: &History, run: &RunId) -> Result<Option<i64>, Fault> {
    let mut store = history.open().await?;
    let found = store.find(&run.0).await?;
    store.close().await;
    Ok(match found {
        InStore::One(number) => Some(number),
        InStore::None | InStore::Many(_) => None,
    })
}

fn remove(outcome: Result<(), JournalError>, console: &Console) {
    if let Err(error) = outcome {
        console.note(&format!("warning: {}", with_causes(&error)));
    }
}

/// The journal that is meant: by id, by its begin, or `latest` of those without a master.
fn chosen(name: &str, found: &[Found]) -> Result<RunId, Fault> {
    let help = "`ld-master runs rescue` lists them";
    if name == "latest" {
        let latest = found.iter().find(|found| !found.busy).map(|found| found.run.clone());
        return latest.ok_or_else(|| Fault::Input(format!("no run is left without its master; {help}")));
    }
    let mut meant = found.iter().filter(|found| found.run.0.starts_with(name));
    match (meant.next(), meant.next()) {
        (Some(found), None) => Ok(found.run.clone()),
        (Some(_), Some(_)) => Err(Fault::Input(format!("`{name}` begins the ids of several runs; {help}"))),
        (None, _) => Err(Fault::Input(format!("there is no journal of a run `{name}`; {help}"))),
    }
}

fn fault(error: &JournalError) -> Fault {
    let help = match error {
        JournalError::Busy { .. } => "; it is left alone: end it, or let it end",
        JournalError::Missing { .. } | JournalError::Folder { .. } | JournalError::File { .. } => "",
    };
    Fault::Input(format!("{}{help}", with_causes(error)))
}

async fn list(journals: &Folder, found: &[Found]) -> String {
    if found.is_empty() {
        return "no run is left without its master\n".into();
    }
    let mut out = format!("{:<36}  {:<13} {:>10}  {}\n", "run", "began", "requests", "label");
    for Found { run, busy } in found {
        let cells = if *busy {
            [String::new(), String::new(), "under way: its master lives".into()]
        } else {
            match Box::pin(journals.open(run)).await {
                Ok(unfinished) => {
                    let cells = cells(&unfinished.recovered);
                    Box::pin(unfinished.close()).await;
                    cells
                }
                Err(error) => [String::new(), String::new(), with_causes(&error)],
            }
        };
        let [began, requests, label] = cells;
        let line = format!("{:<36}  {began:<13} {requests:>10}  {label}", run.0);
        writeln!(out, "{}", line.trim_end()).expect("writing to a String cannot fail");
    }
    out
}

fn cells(recovered: &Recovered) -> [String; 3] {
    let began = recovered.started.as_ref().map(|started| listed::when(&started.wall.to_rfc3339(), clock::wall()));
    let ended = recovered.ledger.response().count();
    let label = recovered.order.label.clone().unwrap_or_default();
    [began.unwrap_or_else(|| "not begun".into()), format::count(ended), label]
}
