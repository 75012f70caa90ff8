//! Data rows from CSV files, read as Python's `csv.DictReader` reads them.

use super::Files;
use crate::script::Fault;
use crate::script::reader::Reader;
use crate::script::spec::shown;
use ld_shared::plan::{AtEnd, Dealing, SourceRows};
use serde_json::{Map, Value};
use std::sync::Arc;

/// A source as documents order it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvOrder {
    /// Its name in `${csv.NAME.COLUMN}`.
    pub name: String,
    /// The file.
    pub file_path: String,
    /// How its rows are dealt.
    pub dealing: Dealing,
}

/// A data source with its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvSource {
    /// Its name in `${csv.NAME.COLUMN}`.
    pub name: Arc<str>,
    /// Names of its columns: the first row of the file.
    pub columns: Vec<String>,
    /// The others. Short ones lack their last columns, long ones are cut; empty lines are none.
    pub rows: Arc<SourceRows>,
    /// How its rows are dealt.
    pub dealing: Dealing,
}

impl CsvOrder {
    /// From `{name, file_path, cycle, unique, at_end}` at `pointer`.
    pub fn read(value: &Value, pointer: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        let Value::Object(map) = value else {
            let message = format!("a data source is an object, found {}", shown(value));
            faults.push(Fault::new(pointer, message).help(r#"write {"name": "users", "file_path": "users.csv"}"#));
            return None;
        };
        let before = faults.len();
        let mut complete = true;
        for key in ["name", "file_path"] {
            if map.get(key).is_none_or(Value::is_null) {
                let fault = Fault::new(pointer, format!("a data source without `{key}`"));
                faults.push(fault.help(r#"write {"name": "users", "file_path": "users.csv"}"#).ignored());
                complete = false;
            }
        }
        let order = Self::check(map, pointer, faults);
        (complete && faults.iter().skip(before).all(Fault::is_ignored)).then_some(order)
    }

    /// Every fault but missing keys: for a command whose parameters these are, which the checker
    /// has counted already.
    pub fn check(map: &Map<String, Value>, pointer: &str, faults: &mut Vec<Fault>) -> Self {
        let mut reader = Reader::new(map, pointer, faults);
        reader.only(&["name", "file_path", "cycle", "unique", "at_end"], &[]);
        let dealing = dealing(&mut reader);
        let name = reader.text("name").unwrap_or_default().to_owned();
        if name.contains(['.', '}']) {
            let fault = Fault::new(reader.at("name"), format!("no placeholder can name the source `{name}`"));
            reader.fault(fault.help("leave out dots and braces: in ${csv.NAME.COLUMN} a dot ends the name").ignored());
        }
        let file_path = reader.text("file_path").unwrap_or_default().to_owned();
        Self { name, file_path, dealing }
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// A file that is missing, unreadable or not UTF-8. The pointer starts at the order.
    pub fn load(&self, files: &Files<'_>) -> Result<CsvSource, Fault> {
        let fault = |message: String| Fault::new("/file_path", message);
        let path = files.place(&self.file_path).map_err(fault)?;
        let bytes = std::fs::read(&path).map_err(|error| {
            let help = format!("it was looked for at {}", path.display());
            let message = format!("cannot read `{}` of the data source `{}`: {error}", self.file_path, self.name);
            fault(message.clone()).help(help).raised("FileNotFoundError", message)
        })?;
        let (columns, rows) = parse(&bytes).map_err(|message| fault(format!("`{}`: {message}", self.file_path)))?;
        Ok(CsvSource { name: self.name.as_str().into(), columns, rows: Arc::new(rows), dealing: self.dealing })
    }
}

/// `unique` or `"cycle": false`: each row goes out once over the cluster, and there is an end.
fn dealing(reader: &mut Reader<'_>) -> Dealing {
    let (cycle, unique) = (reader.boolean("cycle"), reader.boolean("unique").unwrap_or(false));
    if unique && cycle == Some(true) {
        let fault = Fault::new(reader.at("cycle"), "`cycle` and `unique` contradict each other");
        reader.fault(fault.help("rows that go out once do not come round again: leave one of them out"));
    }
    let is_once = unique || cycle == Some(false);
    let at_end = match reader.choice("at_end", &["placeholder", "stop_user", "stop_test"]) {
        Some("stop_user") => AtEnd::StopUser,
        Some("stop_test") => AtEnd::StopTest,
        _ => AtEnd::Placeholder,
    };
    if !is_once && reader.value("at_end").is_some() {
        let fault = Fault::new(reader.at("at_end"), "`at_end` of a source that has no end: its rows come round again");
        reader.fault(fault.help("add \"unique\": true, so that each row goes out once"));
    }
    if is_once { Dealing::Once(at_end) } else { Dealing::Cycle }
}

fn parse(bytes: &[u8]) -> Result<(Vec<String>, SourceRows), String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut columns: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| match error.position() {
            Some(place) => format!("line {} is not UTF-8", place.line()),
            None => error.to_string(),
        })?;
        match &columns {
            None => columns = Some(record.iter().map(str::to_owned).collect()),
            Some(columns) => rows.push(record.iter().take(columns.len()).map(str::to_owned).collect()),
        }
    }
    Ok((columns.unwrap_or_default(), rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dealing_is_read_and_contradictions_are_refused() {
        let of = |more: &str| {
            let text = format!(r#"{{"name": "u", "file_path": "u.csv"{more}}}"#);
            let mut faults = Vec::new();
            let order = CsvOrder::read(&serde_json::from_str(&text).unwrap(), "", &mut faults);
            order.map(|order| order.dealing).ok_or_else(|| faults[0].pointer.clone())
        };
        assert_eq!(of(""), Ok(Dealing::Cycle));
        assert_eq!(of(r#", "cycle": false"#), Ok(Dealing::Once(AtEnd::Placeholder)));
        assert_eq!(of(r#", "unique": true"#), Ok(Dealing::Once(AtEnd::Placeholder)));
        assert_eq!(of(r#", "unique": true, "at_end": "stop_user""#), Ok(Dealing::Once(AtEnd::StopUser)));
        assert_eq!(of(r#", "cycle": false, "at_end": "stop_test""#), Ok(Dealing::Once(AtEnd::StopTest)));
        assert_eq!(of(r#", "unique": true, "cycle": true"#), Err("/cycle".into()));
        assert_eq!(of(r#", "at_end": "stop_test""#), Err("/at_end".into()));
        assert_eq!(of(r#", "unique": true, "at_end": "stop""#), Err("/at_end".into()));
    }

    #[test]
    fn rows_are_those_of_pythons_dict_reader() {
        let text = "\u{feff}name,pw,age\r\nalice,p1,30\n\nb\"ö\"b,\"p,2\",\ncarol,p3,40,extra\n\"da\"\"ve\n2\"\n";
        let (columns, rows) = parse(text.as_bytes()).unwrap();
        assert_eq!(columns, ["name", "pw", "age"]);
        let expected: [&[&str]; 4] =
            [&["alice", "p1", "30"], &["b\"ö\"b", "p,2", ""], &["carol", "p3", "40"], &["da\"ve\n2"]];
        assert_eq!(rows, expected);
        assert_eq!(parse(b"").unwrap(), (vec![], vec![]));
        assert_eq!(parse(b"a\nb\n\xff\n").unwrap_err(), "line 3 is not UTF-8");
    }

    #[test]
    fn spoiled_files_are_rows_or_refused() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/corpus/csv");
        let (mut read, mut refused) = (0, 0);
        ld_shared::noise::fuzz(3, 20_000, &ld_shared::noise::corpus(&folder, None), |bytes| match parse(bytes) {
            Ok((columns, rows)) => {
                let cells: usize = rows.iter().map(Vec::len).sum();
                assert!(cells <= bytes.len() + 1 && rows.iter().all(|row| row.len() <= columns.len()));
                read += 1;
            }
            Err(why) => {
                assert!(!why.is_empty() && std::str::from_utf8(bytes).is_err(), "{why}: {}", bytes.escape_ascii());
                refused += 1;
            }
        });
        assert!(read > 2_000 && refused > 2_000, "{read} read, {refused} refused");
    }
}
