use super::*;
use serde_json::json;

fn scenario() -> ScenarioPlan {
    let plan = json!({
        "name": "s", "user": "sse_user", "load": {"closed": {"users": {"segments": [], "tail": 1.0}}},
        "first_number": 0, "mode": "sequence", "tasks": [], "wait_time": null, "host": null,
        "connections": "per_user", "connect_timeout": 5.0, "request_timeout": 5.0,
        "tls": {"verify": true, "ca": null, "certificate": null, "key": null}, "status_check": "always"
    });
    serde_json::from_value(plan).unwrap()
}

#[test]
fn malformed_tasks_name_their_fault() {
    let url = "http://h/";
    for (fields, pointer, message) in [
        (json!({}), "/request_url", "missing request_url"),
        (json!({"url": url, "method": "head"}), "/method", "an answer to HEAD has no events"),
        (json!({"url": url, "method": "gett"}), "/method", "unknown method `gett`"),
        (json!({"url": url, "events": 0}), "/events", "expected a whole number from 1, found 0"),
        (json!({"url": url, "until": {"pattern": "("}}), "/until/pattern", "unusable pattern: unclosed group"),
        (json!({"url": url, "duration": 5, "timeout": 5}), "/duration", "5 s are not shorter than the time-out of 5 s"),
        (json!({"url": url, "event": "add"}), "/event", "`event` says which events count, but none are waited for"),
        (json!({"url": url, "timeout": 0}), "/timeout", "expected seconds above 0, found 0"),
    ] {
        let faults = Sse::check(fields.as_object().unwrap(), &scenario());
        assert_eq!(faults.len(), 1, "{fields}: {faults:?}");
        assert_eq!((&*faults[0].pointer, &*faults[0].message), (pointer, message), "{fields}");
    }
}

#[test]
fn requests_ask_for_events_unless_told_otherwise() {
    let request = |fields: Value| Value::Object(fields::request(fields.as_object().unwrap()));
    assert_eq!(
        request(json!({"url": "u", "events": 1, "until": "x", "headers": {"accept": "a/b", "X": 1}})),
        json!({"method": "get", "url": "u", "headers": {"accept": "a/b", "X": 1, "Cache-Control": "no-cache"}})
    );
    let timeout = |fields: Value| fields::parse(fields.as_object().unwrap(), &scenario()).unwrap().timeout.to_string();
    let seconds = [
        json!({"url": "http://h"}),
        json!({"url": "http://h", "duration": 90}),
        json!({"url": "http://h", "timeout": "7"}),
    ];
    assert_eq!(seconds.map(timeout), ["60", "150", "7"]);
}

#[test]
fn a_stream_goes_on_after_its_last_id() {
    let mut session = Session::default();
    let request = |session: &Session, asked: &[u8]| {
        let mut request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
        session.resume(asked, &mut request);
        String::from_utf8(request).unwrap()
    };
    session.keep((*b"a").into(), "7");
    session.keep((*b"a").into(), "8");
    assert_eq!(request(&session, b"a"), "GET / HTTP/1.1\r\nLast-Event-ID: 8\r\nHost: h\r\n\r\n");
    assert_eq!(request(&session, b"b"), "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    session.keep((*b"a").into(), "");
    assert_eq!(request(&session, b"a"), "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    for n in 0..99_u8 {
        session.keep([n].into(), "1");
    }
    assert_eq!(session.ids.len(), MAX_IDS);
}
