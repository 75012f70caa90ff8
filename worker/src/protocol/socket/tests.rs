use super::*;
use serde_json::json;

fn scenario() -> ScenarioPlan {
    let plan = json!({
        "name": "s", "user": "socket_user", "load": {"closed": {"users": {"segments": [], "tail": 1.0}}},
        "first_number": 0, "mode": "sequence", "tasks": [], "wait_time": null, "host": null,
        "connections": "per_user", "connect_timeout": 5.0, "request_timeout": 5.0,
        "tls": {"verify": true, "ca": null, "certificate": null, "key": null}, "status_check": "always"
    });
    serde_json::from_value(plan).unwrap()
}

fn faults(fields: &Value) -> Vec<Fault> {
    Socket::check(fields.as_object().unwrap(), &scenario())
}

#[test]
fn malformed_steps_name_their_fault() {
    for (fields, pointer, message, seed) in [
        (json!({"protocol": "SCTP"}), "/protocol", "unsupported protocol `sctp`", Some("unsupported protocol: sctp")),
        (
            json!({"expect_substring": "a'b"}),
            "/expect_substring",
            "`expect_substring` without `expect_bytes` or `framing`",
            Some("expected \"a'b\" in response"),
        ),
        (
            json!({"payload": "hex:0g"}),
            "/payload",
            "`hex:` takes pairs of hexadecimal digits, found another thing at digit 1",
            Some("non-hexadecimal number found in fromhex() arg at position 1"),
        ),
        (
            json!({"target": "localhost"}),
            "/target",
            "unusable target `localhost`: no port; expected host:port",
            Some("[Errno 111] Connection refused"),
        ),
        (
            json!({"host": "a:b"}),
            "/host",
            "unusable target `a:b`: a port that is not between 1 and 65535",
            Some("invalid literal for int() with base 10: 'b'"),
        ),
        (json!({"payload": []}), "/payload", "expected a text, a number or null, found a list", None),
        (json!({"protocol": "udp", "tls": true}), "/tls", "no TLS over `udp`", None),
        (
            json!({"framing": {"fixed": 0}}),
            "/framing/fixed",
            "expected a whole number from 1 to 67108864, found 0",
            None,
        ),
        (
            json!({"framing": {"length_prefix": 3}}),
            "/framing/length_prefix",
            "expected 1, 2, 4 or 8 bytes, found 3",
            None,
        ),
        (json!({"framing": {"delimiter": ""}}), "/framing/delimiter", "an empty delimiter", None),
        (json!({"framing": {}}), "/framing", "no framing in it", None),
        (
            json!({"framing": {"fixed": 1}, "expect_bytes": 1}),
            "/expect_bytes",
            "`framing` says where the reply ends",
            None,
        ),
        (json!({"protocol": "udp", "framing": {"fixed": 1}}), "/framing", "a datagram is a frame of its own", None),
        (json!({"expect_reply": true}), "/expect_reply", "nothing says where the reply ends", None),
    ] {
        let found = faults(&fields);
        assert_eq!(found.len(), 1, "{fields}: {found:?}");
        let fault = &found[0];
        assert_eq!((&*fault.pointer, &*fault.message, fault.seed.as_deref()), (pointer, message, seed), "{fields}");
    }
}

#[test]
fn steps_of_every_kind_are_understood() {
    let bindings = Bindings::new(&ld_shared::plan::Plan::default(), Vec::new());
    for (fields, request_type, name, reads) in [
        (json!({}), "TCP", "tcp:127.0.0.1:9000", Reads::Nothing),
        (json!({"target": "tls://[::1]:1", "expect_bytes": "3"}), "TLS", "tls:[::1]:1", Reads::Bytes(3)),
        (json!({"tls": true, "host": "h:1", "framing": {"fixed": 2}}), "TLS", "tls:h:1", Reads::Frame),
        (
            json!({"target": "unix:/a", "framing": {"fixed": 2}, "expect_reply": false}),
            "UNIX",
            "unix:/a",
            Reads::Nothing,
        ),
        (json!({"protocol": "Udp", "expect_substring": "a"}), "UDP", "udp:127.0.0.1:9000", Reads::Datagram(usize::MAX)),
        (json!({"target": "udp://h:1", "expect_bytes": 4, "payload": 7}), "UDP", "udp:h:1", Reads::Datagram(4)),
    ] {
        assert_eq!(faults(&fields), []);
        let parsed = fields::parse(fields.as_object().unwrap(), &scenario()).unwrap();
        let step = Step::compile(parsed, &bindings, true);
        assert_eq!((step.kind.request_type(), &*step.name, step.reads), (request_type, name, reads), "{fields}");
    }
}

#[test]
fn payloads_become_bytes() {
    let bytes = |text: &str| framed(None, Cow::Borrowed(text)).map(Cow::into_owned);
    assert_eq!(bytes("hex:DE ad\nBE EF").unwrap(), [0xde, 0xad, 0xbe, 0xef]);
    assert_eq!(bytes("HEX:00").unwrap(), b"HEX:00");
    assert_eq!(bytes("héllo").unwrap(), "héllo".as_bytes());
    assert_eq!(bytes("hex:").unwrap(), b"");
    for bad in ["hex:1", "hex:zz", "hex:é0"] {
        assert_eq!(bytes(bad).unwrap_err().kind, FailureKind::Request);
    }
}
