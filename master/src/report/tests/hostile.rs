//! Bytes that targets send to break files: a strict parser must read back what was written.

use super::*;
use ld_shared::record::Answer;
use proptest::prelude::*;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesRef, Event};
use quick_xml::reader::Reader;

/// Elements and attributes as `(name, text)`, in the order of their ends; panics unless the text is
/// well-formed.
fn parsed(xml: &str) -> Vec<(String, String)> {
    let outside = xml.chars().find(|c| !is_xml(*c));
    assert_eq!(outside, None, "no XML character");
    let mut reader = Reader::from_str(xml);
    reader.config_mut().enable_all_checks(true);
    let (mut open, mut seen): (Vec<(String, String)>, Vec<_>) = (Vec::new(), Vec::new());
    let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
    loop {
        let event = reader.read_event().unwrap();
        if let Event::Start(tag) | Event::Empty(tag) = &event {
            for attribute in tag.attributes() {
                let attribute = attribute.unwrap();
                let value = attribute.normalized_value(XmlVersion::Implicit1_0).unwrap().into_owned();
                seen.push((text(attribute.key.as_ref().as_ref()), value));
            }
        }
        match event {
            Event::Start(tag) => open.push((text(tag.name().as_ref().as_ref()), String::new())),
            Event::Empty(tag) => seen.push((text(tag.name().as_ref().as_ref()), String::new())),
            Event::End(_) => seen.extend(open.pop()),
            Event::Text(piece) => {
                assert!(!piece.contains("]]>"));
                add(&mut open, &piece.xml10_content());
            }
            Event::GeneralRef(reference) => add(&mut open, &referred(&reference)),
            Event::Eof => {
                assert!(open.is_empty());
                return seen;
            }
            _ => {}
        }
    }
}

fn add(open: &mut [(String, String)], piece: &str) {
    match open.last_mut() {
        Some((_, text)) => text.push_str(piece),
        None => assert!(piece.trim().is_empty(), "text outside of the document"),
    }
}

fn referred(reference: &BytesRef<'_>) -> String {
    if let Some(c) = reference.resolve_char_ref().unwrap() {
        return c.to_string();
    }
    let name = reference.xml10_content();
    match &*name {
        "amp" => "&",
        "lt" => "<",
        "gt" => ">",
        "quot" => "\"",
        other => panic!("unknown entity {other}"),
    }
    .to_owned()
}

fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// The text with what XML has no way to write made visible.
fn visible(text: &str) -> String {
    let shown = |c: char| match c {
        c if is_xml(c) => c.to_string(),
        c if c < ' ' => format!("\\x{:02x}", u32::from(c)),
        c => format!("\\u{:04x}", u32::from(c)),
    };
    text.chars().map(shown).collect()
}

fn both(name: &str, error: &str, body: &[u8]) -> Findings {
    let headers = vec![("X-Any".to_owned(), name.to_owned())];
    let answer = Some(Arc::new(Answer { headers, body: body.to_vec() }));
    let success = Record { answer, body_bytes: body.len() as u64, url: error.into(), ..record(name, Some(200), None) };
    of(vec![success, Record { url: name.into(), ..record(name, Some(0), Some(error)) }])
}

fn check(name: &str, error: &str, body: &[u8]) {
    let findings = both(name, error, body);
    let get = |seen: &[(String, String)], key: &str| seen.iter().find(|(k, _)| k == key).unwrap().1.clone();
    let text_of_body = String::from_utf8_lossy(body).into_owned();
    let in_memory = |part| xml::Xml.value(&findings, part).unwrap().as_str().unwrap().to_owned();
    for success in [text(&xml::Xml, &findings, Part::Successes), in_memory(Part::Successes)] {
        let seen = parsed(&success);
        assert_eq!(get(&seen, "name"), visible(name));
        assert_eq!(get(&seen, "test_url"), visible(error));
        assert_eq!(get(&seen, "text"), visible(&text_of_body));
        assert_eq!(get(&seen, "content"), ld_shared::pytext::Bytes(body).to_string());
        assert_eq!(get(&seen, "headers"), visible(&format!("X-Any: {name}")));
    }
    for failure in [text(&xml::Xml, &findings, Part::Failures), in_memory(Part::Failures)] {
        assert_eq!(get(&parsed(&failure), "error"), visible(error));
    }
    let seen = parsed(&text(&junit::Junit, &findings, Part::All));
    let names = seen.iter().filter(|(key, value)| key == "name" && *value == visible(name)).count();
    assert!(names >= 2, "{seen:?}");
    assert_eq!(get(&seen, "message"), visible(error));
    assert_eq!(get(&seen, "failure"), visible(error));
    // JSON and CSV keep every character
    let file: Value = serde_json::from_str(&text(&json::Json, &findings, Part::Failures)).unwrap();
    assert_eq!((&file["Failure_Test1"]["error"], &file["Failure_Test1"]["name"]), (&error.into(), &name.into()));
    let csv = text(&csv::Csv, &findings, Part::All);
    let rows: Vec<_> = ::csv::Reader::from_reader(csv.as_bytes()).into_records().collect::<Result<_, _>>().unwrap();
    assert_eq!((&rows[1][3], &rows[1][7], rows.len()), (name, error, 2));
    let page = text(&html::Html, &findings, Part::All);
    assert!(page.len() < 200_000);
}

#[test]
fn known_troublemakers() {
    let texts = [
        "\u{1}",
        "]]>",
        "\u{fffe}\u{ffff}",
        "&#1;",
        "\r\n\r",
        "<![CDATA[",
        "--><!--",
        " \t lead",
        "\0",
        "\u{202e}\u{feff}",
        "é😀",
    ];
    for text in texts {
        check(text, text, text.as_bytes());
    }
    check("a", "b", b"\xff\xfe\x00\xed\xa0\x80\xc3]]>\x01");
}

#[test]
fn a_message_of_a_megabyte() {
    let message = "\u{1}]]>\u{fffe}é\"'\n".repeat(70_000);
    check("big", &message, message.as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_text_is_read_back(
        name in any::<String>(),
        error in proptest::collection::vec(prop_oneof![0..0x80_u32, 0xfff0..0x1_0010_u32], 0..40),
        body in any::<Vec<u8>>(),
    ) {
        let error: String = error.into_iter().filter_map(char::from_u32).collect();
        check(&name, &error, &body);
    }
}

/// The worst that a run may hold: every list at its bound, every text long and full of characters
/// that HTML escapes.
#[test]
fn the_page_stays_below_two_megabytes() {
    let long = |n: u64| format!("{n}{}", "\"'/&<".repeat(100));
    let mut records = Vec::new();
    for name in 0..1_000 {
        let named = record(&long(name), Some(200), None);
        for reason in 0..20 {
            records.push(Record { error: Some(long(reason).into()), ..named.clone() });
        }
        records.push(named);
    }
    let mut findings = of(records);
    let run = Arc::make_mut(&mut findings.runs[0]);
    run.label = Some(long(0));
    let threshold = fixture::thresholds().remove(1);
    run.verdict.thresholds = (0..300)
        .map(|n| crate::run::verdict::Threshold { rule: long(n), seen: long(n), ..threshold.clone() })
        .collect();
    run.verdict.reasons = (0..1_000).map(long).collect();
    let measured = &mut run.measured;
    let plan = Arc::make_mut(&mut measured.plan);
    plan.scenarios[0].host = Some(long(0).into());
    let worker = measured.workers.remove(1);
    measured.workers = (0..1_000).map(|n| crate::run::WorkerResult { name: long(n), ..worker.clone() }).collect();
    let loss = measured.losses.remove(0);
    measured.losses =
        (0..1_000).map(|n| crate::run::Loss { worker: long(n), reason: long(n), ..loss.clone() }).collect();
    let event = measured.events.remove(0);
    measured.events = (0..1_000).map(|n| crate::run::Event { what: long(n), by: long(n), ..event.clone() }).collect();
    let second = measured.timeline[&5].clone();
    measured.timeline = (0..3_600).map(|s| (s, second.clone())).collect();
    plan.test_time = Some(ld_shared::time::RunTime::from_secs(3_600.0));
    let runs: Vec<Arc<Run>> = std::iter::repeat_n(Arc::clone(&findings.runs[0]), 3).collect();
    findings.result = RunResult::of(&runs[..1], runs[0].verdict.clone());
    let mut entry = findings.result.runs.remove(0);
    entry.verdict = Verdict::nothing();
    findings.result.runs = vec![entry; 1_000];
    findings.runs = runs;
    let page = text(&html::Html, &findings, Part::All);
    assert!(page.len() < 2_000_000, "{}", page.len());
    assert!(page.contains("… and 750 more, in the summary") && page.contains("… and 19,900 more, in the summary"));
}
