use super::packet::{self, Incoming, Version};
use super::{characters, fields};
use proptest::prelude::*;
use serde_json::{Value, json};

#[expect(clippy::needless_pass_by_value, reason = "callers write it with json!")]
fn faults(step: Value) -> Vec<(String, String)> {
    let fields = step.as_object().unwrap();
    let faults = fields::parse(fields).err().unwrap_or_default();
    faults.into_iter().map(|fault| (fault.pointer, fault.seed.unwrap_or(fault.message))).collect()
}

#[test]
fn malformed_steps_are_told_with_the_seeds_texts() {
    for (step, pointer, text) in [
        (json!({"method": "Bogus"}), "/method", "unsupported mqtt method: bogus"),
        (json!({"topic": ""}), "/topic", "Invalid topic."),
        (json!({"topic": "a/#"}), "/topic", "Invalid topic."),
        (json!({"method": "subscribe", "topic": "a#"}), "/topic", "Invalid topic."),
        (
            json!({"topic": "t", "broker": "http://x"}),
            "/broker",
            "unsupported scheme `http`; expected one of mqtt, tcp, mqtts, ssl",
        ),
        (json!({"topic": "t", "version": "4.2"}), "/version", "unknown version `4.2` of MQTT"),
        (json!({"topic": "t", "session_expiry": 1}), "/session_expiry", "MQTT 3.1.1 has no session expiry"),
        (json!({"topic": "t", "password": "x"}), "/password", "MQTT 3.1.1 has no password without a username"),
        (json!({"topic": "t", "expect": "x"}), "/expect", "`publish` receives nothing"),
        (json!({"topic": "t", "qos": 3}), "/qos", "expected a whole number from 0 to 2, found 3"),
        (json!({"topic": "t", "will": {"topc": "x", "topic": "w"}}), "/will/topc", "unknown key `topc`"),
    ] {
        assert_eq!(faults(step.clone()), [(pointer.to_owned(), text.to_owned())], "{step}");
    }
    for step in [
        json!({"method": "CONNECT", "broker": "mqtts://[::1]"}),
        json!({"topic": "a", "payload": {"a": [1]}, "qos": 2}),
        json!({"method": "receive"}),
        json!({"method": "subscribe", "topic": "+/x/#", "stamp": true}),
        json!({"method": "disconnect"}),
    ] {
        assert_eq!(faults(step.clone()), [], "{step}");
    }
}

#[test]
fn topics_fall_under_filters() {
    for (topic, filter, wanted) in [
        ("a/b", "a/b", true),
        ("a/b", "a/+", true),
        ("a/b", "a/#", true),
        ("a", "a/#", true),
        ("a/b", "#", true),
        ("é", "+", true),
        ("a/b", "+", false),
        ("a", "a/+", false),
        ("$SYS/x", "#", false),
        ("$SYS/x", "$SYS/#", true),
        ("a/b", "$share/g/a/+", true),
    ] {
        assert_eq!(packet::matches(topic, filter), wanted, "{topic} {filter}");
    }
}

#[test]
fn refusals_have_names() {
    let told = |version, code, is_connect| packet::refusal(version, code, is_connect).map(|f| f.reason.to_string());
    assert_eq!(told(Version::V5, 0x87, true).as_deref(), Some("not authorized (0x87)"));
    assert_eq!(told(Version::V4, 5, true).as_deref(), Some("not authorized (0x05)"));
    assert_eq!(told(Version::V4, 0x80, false).as_deref(), Some("subscription refused (0x80)"));
    assert_eq!(told(Version::V5, 0x10, false), None);
}

#[test]
fn packets_that_never_end_are_refused() {
    assert!(packet::frame(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    assert!(packet::frame(&[0x30, 0xff, 0xff, 0xff, 0x7f]).is_err());
    assert_eq!(packet::frame(&[0x30, 0xff]), Ok(None));
    assert_eq!(characters("hé".as_bytes()), 2);
}

proptest! {
    // whatever a broker sends, nothing panics, and what is read stays within its packet
    #[test]
    fn garbage_is_refused(kind in 0_u8..16, flags in 0_u8..16, body in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut bytes = vec![kind << 4 | flags, body.len() as u8];
        bytes.extend_from_slice(&body);
        let Ok(frame) = packet::frame(&bytes) else { return Ok(()) };
        let frame = frame.unwrap();
        prop_assert_eq!(frame.length, bytes.len());
        for version in [Version::V4, Version::V5] {
            if let Ok(Incoming::Publish(publish)) = packet::decode(version, &bytes, frame) {
                prop_assert!(publish.payload.len() < bytes.len());
            }
        }
    }
}
