//! Tasks against descriptors. Calls are tested against real servers: `tests/tests/grpc.rs`.

use super::descriptors::{self, Descriptors};
use super::fields::Wanted;
use super::{DESCRIPTORS, Grpc, frames};
use crate::protocol::Protocol as _;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use ld_shared::plan::Plan;
use prost::Message as _;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto,
};
use serde_json::{Value, json};

pub(crate) fn plan(scenario: &Value) -> Plan {
    let mut whole = json!({
        "name": "s", "user": "grpc_user", "load": {"closed": {"users": {"segments": [], "tail": 1.0}}},
        "first_number": 0, "mode": "sequence", "tasks": [], "wait_time": null, "host": null,
        "connections": "per_user", "connect_timeout": 5.0, "request_timeout": 5.0,
        "tls": {"verify": true, "ca": null, "certificate": null, "key": null}, "status_check": "always"
    });
    for (key, value) in scenario.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({
        "seed": 0, "scenarios": [whole], "env": {"E": "e"}, "variables": {"name": "bob", "n": 7}, "sources": [],
        "test_time": null, "warmup": 0, "graceful_stop": 0, "iterations": null,
        "records": {"keep": 0, "bodies": "none"}
    }))
    .unwrap()
}

/// A task's fields and its faults against descriptors.
fn faults(fields: &Value) -> Vec<(String, String)> {
    let mut plan = plan(&json!({}));
    let set = BASE64_STANDARD.encode(described().encode_to_vec());
    plan.scenarios[0].options.insert(DESCRIPTORS.into(), set.into());
    let faults = Grpc::check(fields.as_object().unwrap(), &plan.scenarios[0]);
    faults.into_iter().map(|fault| (fault.pointer, fault.seed.unwrap_or(fault.message))).collect()
}

/// Two services of one simple name, and a message of many kinds of fields.
fn described() -> FileDescriptorSet {
    let field = |name: &str, number, label: Label, kind, of: &str| FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(label.into()),
        r#type: Some(kind),
        type_name: (!of.is_empty()).then(|| of.into()),
        ..FieldDescriptorProto::default()
    };
    let all = DescriptorProto {
        name: Some("All".into()),
        field: vec![
            field("some_text", 1, Label::Optional, Type::String.into(), ""),
            field("number", 2, Label::Optional, Type::Int64.into(), ""),
            field("inner", 3, Label::Repeated, Type::Message.into(), ".p.All"),
            field("raw", 4, Label::Optional, Type::Bytes.into(), ""),
        ],
        ..DescriptorProto::default()
    };
    let service = || ServiceDescriptorProto {
        name: Some("S".into()),
        method: vec![MethodDescriptorProto {
            name: Some("M".into()),
            input_type: Some(".p.All".into()),
            output_type: Some(".p.All".into()),
            ..MethodDescriptorProto::default()
        }],
        ..ServiceDescriptorProto::default()
    };
    let file = |package: &str, message| FileDescriptorProto {
        name: Some(format!("{package}.proto")),
        package: Some(package.into()),
        dependency: if package == "p" { vec![] } else { vec!["p.proto".into()] },
        message_type: message,
        service: vec![service()],
        syntax: Some("proto3".into()),
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file("q", vec![]), file("p", vec![all])] }
}

#[test]
fn what_does_not_fit_the_service_is_found_before_the_test() {
    let fault = |pointer: &str, text: &str| vec![(pointer.to_owned(), text.to_owned())];
    for (task, expected) in [
        (json!({"service": "p.S", "method": "M", "payload": {"some_text": "a", "number": "7"}}), vec![]),
        (json!({"service": "p.S", "method": "M", "payload": {"someText": "a", "number": "${var.n}"}}), vec![]),
        (json!({"service": "${var.s}", "method": "M"}), vec![]),
        (json!({"service": "S", "method": "M"}), fault("/service", "`S` may be any of p.S, q.S")),
        (json!({"stub_path": "a.b.SStub", "method": "M"}), fault("/stub_path", "`S` may be any of p.S, q.S")),
        (json!({"method": "r.S/M"}), fault("/method", "no service `r.S`")),
        (json!({"service": "p.S", "method": "N"}), fault("/method", "the service `p.S` has no method `N`")),
        (
            json!({"service": "p.S", "method": "M", "rpc": "bidi"}),
            fault("/rpc", "`p.S.M` is a call of kind unary, not bidi"),
        ),
        (
            json!({"service": "p.S", "method": "M", "request_path": "a.b_pb2.Other"}),
            fault("/request_path", "`p.S.M` takes p.All, not Other"),
        ),
        (
            json!({"service": "p.S", "method": "M", "payload": []}),
            fault("/payload", "`p.S.M` takes one message, found a list"),
        ),
        (
            json!({"service": "p.S", "method": "M", "payload": {"inner": [{}, {"${x}": "${y}", "number": {}}]}}),
            fault("/payload/inner/1/${x}", "Protocol message All has no \"${x}\" field."),
        ),
    ] {
        assert_eq!(faults(&task), expected, "{task}");
    }
    let seen = faults(&json!({"service": "p.S", "method": "M", "payload": {"number": "x"}}));
    assert_eq!((seen.len(), &*seen[0].0), (1, "/payload"), "{seen:?}");
}

#[test]
fn messages_are_what_json_says_and_the_other_way_round() {
    let descriptors = Descriptors::decode(&described().encode_to_vec()).unwrap();
    let wanted =
        |service: &str| Wanted { service: service.into(), method: "M".into(), stub: None, pointer: "/service" };
    let method = descriptors.method(&wanted("p.S")).unwrap();
    let json =
        json!({"some_text": "\u{e9}", "number": 9_007_199_254_740_993_u64, "inner": [{"raw": "AQI="}]}).to_string();
    let sent = descriptors::encode([&json], &method.input()).unwrap();
    assert_eq!(&sent[..7], [0, 0, 0, 0, 19, 10, 2]);
    let message = descriptors::decode(&method.output(), sent.slice(frames::PREFIX..)).unwrap();
    let mut shown = Vec::new();
    descriptors::to_json(&message, &mut shown);
    let shown: Value = serde_json::from_slice(&shown).unwrap();
    let inner = json!([{"some_text": "", "number": 0, "inner": [], "raw": "AQI="}]);
    assert_eq!(shown, json!({"some_text": "\u{e9}", "number": 9_007_199_254_740_993_u64, "inner": inner, "raw": ""}));
    let failure = descriptors::encode(["{\"nope\": 1}"], &method.input()).unwrap_err();
    assert_eq!(&*failure.reason, "the payload is no p.All: unrecognized field name 'nope'");
    assert!(descriptors::decode(&method.output(), Bytes::from_static(&[10, 9])).is_err());
}
