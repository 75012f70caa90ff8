//! What services and messages are: descriptors from the master, or from the target itself.

use super::fields::{Fields, Payload, Wanted};
use super::frames;
use crate::protocol::Fault;
use crate::protocol::reader::{escape, nearest};
use bytes::{Bytes, BytesMut};
use ld_shared::sample::{Failure, FailureKind};
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, SerializeOptions, ServiceDescriptor,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// Kinds of calls, by which sides send a stream of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rpc {
    Unary,
    ServerStream,
    ClientStream,
    Bidi,
}

/// Services and messages of one target.
pub(super) struct Descriptors {
    pool: DescriptorPool,
}

impl Rpc {
    pub(super) const NAMES: [&str; 4] = ["unary", "server_stream", "client_stream", "bidi"];

    pub(super) fn named(name: &str) -> Option<Self> {
        let all = [Self::Unary, Self::ServerStream, Self::ClientStream, Self::Bidi];
        all.into_iter().find(|rpc| rpc.name() == name)
    }

    pub(super) fn of(method: &MethodDescriptor) -> Self {
        match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => Self::Unary,
            (false, true) => Self::ServerStream,
            (true, false) => Self::ClientStream,
            (true, true) => Self::Bidi,
        }
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Whether the client may send any number of messages.
    pub(super) fn sends_many(self) -> bool {
        matches!(self, Self::ClientStream | Self::Bidi)
    }

    /// Whether the server may.
    pub(super) fn receives_many(self) -> bool {
        matches!(self, Self::ServerStream | Self::Bidi)
    }
}

impl Descriptors {
    pub(super) fn new(pool: DescriptorPool) -> Self {
        Self { pool }
    }

    /// From an encoded `FileDescriptorSet`.
    pub(super) fn decode(set: &[u8]) -> Result<Self, String> {
        DescriptorPool::decode(set).map(Self::new).map_err(|error| error.to_string())
    }

    /// The method that a task calls. The error points at the task's field.
    pub(super) fn method(&self, wanted: &Wanted) -> Result<MethodDescriptor, Fault> {
        let name = wanted.service.as_str();
        let service = match self.pool.get_service_by_name(name) {
            Some(service) => Ok(service),
            None => self.named(name, wanted.pointer),
        }?;
        let method = service.methods().find(|method| method.name() == wanted.method);
        method.ok_or_else(|| {
            let names: Vec<String> = service.methods().map(|method| method.name().to_owned()).collect();
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            let fault = Fault::new(
                "/method",
                format!("the service `{}` has no method `{}`", service.full_name(), wanted.method),
            )
            .help(nearest(&wanted.method, &known));
            match &wanted.stub {
                Some(stub) => fault.seed(format!("'{stub}' object has no attribute '{}'", wanted.method)),
                None => fault,
            }
        })
    }

    /// The service of which `name` is the last part.
    fn named(&self, name: &str, pointer: &'static str) -> Result<ServiceDescriptor, Fault> {
        let mut found: Vec<_> = self.pool.services().filter(|service| service.name() == name).collect();
        let names = |services: &mut dyn Iterator<Item = ServiceDescriptor>| {
            let names: BTreeSet<String> = services.map(|service| service.full_name().to_owned()).collect();
            names.into_iter().collect::<Vec<_>>()
        };
        match (found.pop(), found.is_empty()) {
            (Some(service), true) => Ok(service),
            (Some(service), false) => {
                let all = names(&mut found.into_iter().chain([service])).join(", ");
                let fault = Fault::new(pointer, format!("`{name}` may be any of {all}"));
                Err(fault.help("name the service in full: \"service\": \"package.Service\""))
            }
            (None, _) => {
                let all = names(&mut self.pool.services());
                let known: Vec<&str> = all.iter().map(String::as_str).collect();
                Err(Fault::new(pointer, format!("no service `{name}`")).help(nearest(name, &known)))
            }
        }
    }

    /// Every fault of a task that only descriptors show.
    pub(super) fn faults(&self, fields: &Fields) -> Vec<Fault> {
        if fields.wanted.is_open() {
            return Vec::new();
        }
        let method = match self.method(&fields.wanted) {
            Ok(method) => method,
            Err(fault) => return vec![fault],
        };
        let mut faults: Vec<Fault> = fits(&method, fields).err().into_iter().collect();
        if faults.is_empty() {
            fields.payload.each(|message, pointer| check(message, pointer, &method.input(), &mut faults));
        }
        faults
    }
}

/// Whether the task's `rpc`, `request_path` and number of messages are those of the method.
pub(super) fn fits(method: &MethodDescriptor, fields: &Fields) -> Result<(), Fault> {
    let (rpc, name) = (Rpc::of(method), method.full_name());
    if let Some(given) = fields.rpc.filter(|given| *given != rpc) {
        let fault = Fault::new("/rpc", format!("`{name}` is a call of kind {}, not {}", rpc.name(), given.name()));
        return Err(fault.help("leave `rpc` out: the descriptor says what it is"));
    }
    if let Some(request) = fields.request.as_ref().filter(|request| *request != method.input().name()) {
        let fault =
            Fault::new("/request_path", format!("`{name}` takes {}, not {request}", method.input().full_name()));
        return Err(fault.help("leave `request_path` out: the descriptor says what it is"));
    }
    if matches!(fields.payload, Payload::Many(_)) && !rpc.sends_many() {
        let fault = Fault::new("/payload", format!("`{name}` takes one message, found a list"));
        return Err(fault.help("only calls of kind client_stream and bidi take a list of messages"));
    }
    Ok(())
}

/// Notes what of a JSON value does not fit a message. Texts with placeholders fit anything.
fn check(value: &Value, pointer: &str, message: &MessageDescriptor, faults: &mut Vec<Fault>) {
    let before = faults.len();
    unknown_fields(value, pointer, message, faults);
    if faults.len() > before || has_placeholder(value) {
        return;
    }
    if let Err(error) = DynamicMessage::deserialize(message.clone(), value) {
        faults.push(Fault::new(pointer, format!("it is no {}: {error}", message.full_name())));
    }
}

fn unknown_fields(value: &Value, pointer: &str, message: &MessageDescriptor, faults: &mut Vec<Fault>) {
    // well-known types have JSON forms of their own
    let (Value::Object(object), false) = (value, message.package_name() == "google.protobuf") else { return };
    for (key, value) in object {
        let pointer = format!("{pointer}/{}", escape(key));
        let field = message.get_field_by_json_name(key).or_else(|| message.get_field_by_name(key));
        let Some(field) = field else {
            if message.get_extension_by_json_name(key).is_none() {
                let names: Vec<String> = message.fields().map(|field| field.name().to_owned()).collect();
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                let seed = format!("Protocol message {} has no \"{key}\" field.", message.name());
                let fault = Fault::new(pointer, format!("{} has no field `{key}`", message.full_name()));
                faults.push(fault.help(nearest(key, &known)).seed(seed));
            }
            continue;
        };
        let Kind::Message(inner) = field.kind() else { continue };
        match value {
            Value::Array(items) if field.is_list() => {
                for (i, item) in items.iter().enumerate() {
                    unknown_fields(item, &format!("{pointer}/{i}"), &inner, faults);
                }
            }
            Value::Object(entries) if field.is_map() => {
                let Kind::Message(inner) = inner.map_entry_value_field().kind() else { continue };
                for (key, item) in entries {
                    unknown_fields(item, &format!("{pointer}/{}", escape(key)), &inner, faults);
                }
            }
            other => unknown_fields(other, &pointer, &inner, faults),
        }
    }
}

fn has_placeholder(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("${"),
        Value::Array(items) => items.iter().any(has_placeholder),
        Value::Object(object) => object.values().any(has_placeholder),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Messages, given as JSON, as they are sent.
pub(super) fn encode<T: AsRef<str>>(
    texts: impl IntoIterator<Item = T>,
    input: &MessageDescriptor,
) -> Result<Bytes, Failure> {
    let mut out = BytesMut::new();
    for text in texts {
        let mut json = serde_json::Deserializer::from_str(text.as_ref());
        let message = DynamicMessage::deserialize(input.clone(), &mut json).map_err(|error| {
            let reason = format!("the payload is no {}: {}", input.full_name(), groupable(&error.to_string()));
            Failure::new(FailureKind::Request, reason)
        })?;
        frames::push(&message, &mut out);
    }
    Ok(out.freeze())
}

/// What is wrong with a payload, without its values.
fn groupable(error: &str) -> &str {
    let error = error.rsplit_once(" at line ").map_or(error, |(error, _)| error);
    match error.rsplit_once(", expected ") {
        Some(_) => error.rsplit_once(", ").map_or(error, |(_, expected)| expected),
        None => error,
    }
}

/// A received message, if it is one.
pub(super) fn decode(output: &MessageDescriptor, bytes: Bytes) -> Result<DynamicMessage, Failure> {
    let malformed = |_| Failure::new(FailureKind::Protocol, format!("a message that is no {}", output.full_name()));
    DynamicMessage::decode(output.clone(), bytes).map_err(malformed)
}

/// Appends a message as JSON: fields by their names in the `.proto` file, also those that were not
/// sent; numbers of 64 bits as numbers.
pub(super) fn to_json(message: &DynamicMessage, out: &mut Vec<u8>) {
    let options =
        SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false).stringify_64_bit_integers(false);
    let before = out.len();
    let mut json = serde_json::Serializer::new(&mut *out);
    // what has no JSON form (an `Any` of an unknown type, a time out of range) is shown as null
    if message.serialize_with_options(&mut json, &options).is_err() {
        out.truncate(before);
        out.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_hold_no_values() {
        assert_eq!(groupable("unrecognized field name 'x' at line 1 column 9"), "unrecognized field name 'x'");
        let error = "invalid type: string \"7, expected 8\", expected a 32-bit signed integer at line 1 column 2";
        assert_eq!(groupable(error), "expected a 32-bit signed integer");
    }
}
