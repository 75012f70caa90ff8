//! Against files that the seed wrote: `tests/fixtures/golden`.

use super::*;
use ld_shared::record::Answer;
use serde_json::json;

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/fixtures/golden/", $name))
    };
}

/// The seed's requests: fields and answers from its JSON files, times and lengths from its CSV.
fn seeds() -> Findings {
    let mut csv = ::csv::Reader::from_reader(golden!("reports/01.csv").as_bytes());
    let rows: Vec<::csv::StringRecord> = csv.records().collect::<Result<_, _>>().unwrap();
    let mut rows = rows.iter();
    let mut records = Vec::new();
    for file in [golden!("reports/01_success.json"), golden!("reports/01_failure.json")] {
        let file: Value = serde_json::from_str(file).unwrap();
        for (n, shown) in file.as_object().unwrap().values().enumerate() {
            let field = |name: &str| shown[name].as_str();
            let row = rows.next().unwrap();
            let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
            let answer = field("text").map(|text| {
                let headers = field("headers").unwrap().lines().filter_map(header).collect();
                Arc::new(Answer { headers, body: text.as_bytes().to_vec() })
            });
            records.push(Record {
                ended_at: n as u64,
                request_type: field("Method").unwrap().into(),
                url: field("test_url").unwrap().into(),
                response_us: (row[5].parse::<f64>().unwrap() * 1e3).round() as u64,
                body_bytes: row[6].parse().unwrap(),
                answer,
                ..record(field("name").unwrap(), field("status_code").unwrap().parse().ok(), field("error"))
            });
        }
    }
    of(records)
}

#[test]
fn json_and_xml_are_the_seeds_byte_for_byte() {
    let seeds = seeds();
    assert_eq!(text(&json::Json, &seeds, Part::Successes), golden!("reports/01_success.json"));
    assert_eq!(text(&json::Json, &seeds, Part::Failures), golden!("reports/01_failure.json"));
    assert_eq!(text(&xml::Xml, &seeds, Part::Successes), golden!("reports/01_success.xml"));
    assert_eq!(text(&xml::Xml, &seeds, Part::Failures), golden!("reports/01_failure.xml"));
}

#[test]
fn csv_is_the_seeds_but_for_digits_of_times() {
    let columns = |csv: &str| -> Vec<Vec<String>> {
        let mut rows = ::csv::ReaderBuilder::new().has_headers(false).from_reader(csv.as_bytes());
        let rows = rows.records().map(|row| row.unwrap().iter().map(str::to_owned).collect());
        let short = |row: Vec<String>| {
            row.into_iter().enumerate().map(|(i, v)| match v.parse::<f64>() {
                Ok(ms) if i == 5 => format!("{ms:.3}"),
                _ => v,
            })
        };
        rows.map(|row| short(row).collect()).collect()
    };
    let ours = text(&csv::Csv, &seeds(), Part::All);
    assert_eq!(columns(&ours), columns(golden!("reports/01.csv")));
    assert!(ours.ends_with("\r\n") && ours.matches('\n').count() == ours.matches("\r\n").count());
}

#[test]
fn junit_is_the_seeds_with_more_about_the_suite() {
    let ours = text(&junit::Junit, &seeds(), Part::All);
    let (open, cases) = ours.split_once("</properties>").unwrap();
    let (open, _) = open.split_once(" errors=").unwrap();
    assert_eq!(format!("{open}>{cases}"), golden!("reports/01-junit.xml"));
}

#[test]
fn summary_has_all_that_the_seeds_has() {
    let ours: Value = serde_json::from_str(&text(&summary::Summary, &seeds(), Part::All)).unwrap();
    let seeds: Value = serde_json::from_str(golden!("reports/01-sum.json")).unwrap();
    assert_eq!(ours["totals"]["failure_rate"], seeds["totals"]["failure_rate"]);
    // theirs interpolates between samples, ours counts them; names there are of successes only
    holds_keys(&ours, &seeds, "");
    for (name, theirs) in seeds["per_name"].as_object().unwrap() {
        let success = &ours["per_name"][name]["success_latency"];
        assert_eq!(success["count"], theirs["count"], "{name}");
        for key in ["min_ms", "max_ms", "mean_ms"] {
            let (ours, theirs) = (success[key].as_f64().unwrap(), theirs[key].as_f64().unwrap());
            assert!((ours - theirs).abs() <= theirs * 0.001 + 0.001, "{name} {key}: {ours} for {theirs}");
        }
    }
}

/// Every key of `theirs` is in `ours`, with a value of the same kind.
fn holds_keys(ours: &Value, theirs: &Value, path: &str) {
    for (key, theirs) in theirs.as_object().into_iter().flatten() {
        let ours = ours.get(key).unwrap_or_else(|| panic!("no {path}/{key}"));
        assert_eq!((ours.is_object(), ours.is_number()), (theirs.is_object(), theirs.is_number()), "{path}/{key}");
        holds_keys(ours, theirs, &format!("{path}/{key}"));
    }
}

#[test]
fn tables_in_memory_are_those_of_the_seeds_page() {
    let seeds = seeds();
    let line = named("html").unwrap();
    let value = line.value(&seeds, PAIR).unwrap();
    let tables = value.as_array().unwrap().iter().flat_map(|list| list.as_array().unwrap());
    let tables: String = tables.map(|table| table.as_str().unwrap()).collect();
    let page = golden!("reports/01.html");
    let (_, body) = page.split_once("<h1 class=\"text\">Test Report</h1>").unwrap();
    assert_eq!(format!("{tables}</body></html>"), body);
}

#[test]
fn values_in_memory_are_pairs() {
    let seeds = seeds();
    let value = named("json").unwrap().value(&seeds, PAIR).unwrap();
    let file = |text| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(value, json!([file(golden!("reports/01_success.json")), file(golden!("reports/01_failure.json"))]));
    let value = named("xml").unwrap().value(&seeds, PAIR).unwrap();
    let start = "<xml_data><Success_Test1><Method>GET</Method><test_url>http://127.0.0.1:18080/get</test_url>\
        <name>ok-get</name><status_code>200</status_code><text>{\"args\": {}, \"ok\": true}</text>\
        <content>b'{\"args\": {}, \"ok\": true}'</content><headers>X-Request-Id: req-42\nContent-Type: ";
    assert!(value[0].as_str().unwrap().starts_with(start));
    assert!(value[1].as_str().unwrap().ends_with("</error></Failure_Test15></xml_data>"));
    assert!(named("csv").unwrap().in_memory.is_none() && named("junit").unwrap().in_memory.is_none());
}

#[test]
fn without_requests_reports_are_empty_or_the_seeds_error() {
    let nothing = nothing();
    assert_eq!(text(&csv::Csv, &nothing, Part::All), golden!("empty-records/default_name.csv"));
    assert_eq!(text(&junit::Junit, &nothing, Part::All), golden!("empty-records/loaddensity-junit.xml"));
    let summary = named("summary").unwrap().value(&nothing, &[Part::All]).unwrap();
    let seeds: Value = serde_json::from_str(golden!("empty-records/loaddensity-summary.json")).unwrap();
    holds_keys(&summary, &seeds, "");
    for key in ["totals", "latency_overall", "per_name"] {
        for (name, value) in seeds[key].as_object().unwrap() {
            assert_eq!(&summary[key][name], value, "{key}/{name}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("r").display().to_string();
    let errors = [
        ("html", "LoadDensityHTMLException", "no records to generate HTML report"),
        ("json", "LoadDensityGenerateJsonReportException", "can't generate JSON report"),
        ("xml", "LoadDensityGenerateJsonReportException", "can't generate JSON report"),
    ];
    for (format, kind, text) in errors {
        let line = named(format).unwrap();
        for error in [line.write(&nothing, &name).unwrap_err(), line.value(&nothing, PAIR).unwrap_err()] {
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_part_without_requests_is_an_empty_form() {
    let successes = of(vec![record("a", Some(200), None)]);
    assert_eq!(text(&json::Json, &successes, Part::Failures), "{}");
    assert_eq!(text(&xml::Xml, &successes, Part::Failures), "<?xml version=\"1.0\" ?>\n<xml_data/>\n");
    assert_eq!(xml::Xml.value(&successes, Part::Failures).unwrap(), "<xml_data />");
    let shown = json::Json.value(&successes, Part::Successes).unwrap();
    assert_eq!(shown["Success_Test1"]["content"], "", "not kept");
    assert!(text(&xml::Xml, &successes, Part::Successes).contains("\t\t<text/>\n"));
    assert!(xml::Xml.value(&successes, Part::Successes).unwrap().as_str().unwrap().contains("<text /><content />"));
}
