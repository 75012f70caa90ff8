//! A task, compiled.

use super::Grpc;
use super::descriptors::{self, Descriptors, Rpc};
use super::fields::{self, Fields};
use super::place::Place;
use super::status;
use crate::messages::MessageSeries;
use crate::protocol::PrepareError;
use crate::protocol::text::Text;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ld_shared::plan::TaskPlan;
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::scope::Scope;
use ld_shared::template::Template;
use prost_reflect::MessageDescriptor;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// As records show it.
pub(super) const REQUEST_TYPE: &str = "GRPC";
/// The header of a call's deadline.
pub(super) const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// What messages of streams are, in the statistics.
const MESSAGE: &str = "GRPC message";
const USER_AGENT: &str = concat!("loaddensity/", env!("CARGO_PKG_VERSION"));

/// A task, compiled for one core.
pub struct Task {
    /// Which method, how it was described.
    fields: Fields,
    to: To,
    /// Headers that are always the same.
    headers: HeaderMap,
    /// Metadata with placeholders.
    metadata: Vec<(HeaderName, Text)>,
    /// Messages as JSON.
    payload: Vec<Text>,
    pub(super) timeout: Duration,
    pub(super) max_message: usize,
    pub(super) default_name: Arc<str>,
    /// Name of its messages in the statistics.
    name: String,
    /// The method in the light of the descriptors that were looked at last.
    known: RefCell<Option<Described>>,
}

/// A task's method by the descriptors that describe it.
type Described = (Rc<Descriptors>, Result<Rc<Method>, Failure>);

enum To {
    Fixed(Rc<Place>),
    /// Filled in for each call.
    Open(Text),
}

/// What a task calls, as descriptors describe it.
pub(super) struct Method {
    pub(super) path: PathAndQuery,
    pub(super) input: MessageDescriptor,
    pub(super) output: MessageDescriptor,
    pub(super) rpc: Rpc,
    /// The messages as they are sent, if they are always the same.
    pub(super) body: Option<Bytes>,
    pub(super) series: MessageSeries,
}

impl Task {
    pub(super) fn compile(task: &TaskPlan, grpc: &Grpc) -> Result<Self, PrepareError> {
        let bindings = &grpc.core.bindings;
        let mut fields = fields::parse(&task.fields, &grpc.scenario).map_err(|faults| {
            PrepareError(
                faults.first().map_or_else(String::new, |fault| format!("{} at {}", fault.message, fault.pointer)),
            )
        })?;
        for text in [&mut fields.wanted.service, &mut fields.wanted.method] {
            *text = Template::compile_name(text, bindings);
        }
        let to = match Text::compile(&fields.target, bindings) {
            Text::Literal(text) => To::Fixed(grpc.places.get(&text).map_err(PrepareError)?),
            template @ Text::Template(_) => To::Open(template),
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let deadline = HeaderValue::try_from(status::timeout(fields.timeout)).expect("digits and a letter are ASCII");
        headers.insert(TIMEOUT, deadline);
        let mut metadata = Vec::new();
        for (name, text) in &fields.metadata {
            match Text::compile(text, bindings) {
                Text::Literal(text) => {
                    let value = fields::value_of(name, &text).map_err(PrepareError)?;
                    headers.append(name.clone(), value);
                }
                template @ Text::Template(_) => metadata.push((name.clone(), template)),
            }
        }
        let mut payload = Vec::new();
        fields.payload.each(|message, _| payload.push(Text::compile_json(message, bindings)));
        let default_name = Template::compile_name(&fields.default_name, bindings);
        let name = task.name.as_deref().map(|name| Template::compile_name(name, bindings));
        Ok(Self {
            to,
            headers,
            metadata,
            payload,
            // what is longer than any test is as good as none
            timeout: Duration::try_from_secs_f64(fields.timeout).unwrap_or(Duration::from_hours(24 * 365)),
            max_message: fields.max_message,
            name: name.unwrap_or_else(|| default_name.clone()),
            default_name: default_name.into(),
            known: RefCell::new(None),
            fields,
        })
    }

    /// Where it goes.
    pub(super) fn place(&self, grpc: &Grpc, scope: &mut Scope) -> Result<Rc<Place>, Failure> {
        match &self.to {
            To::Fixed(place) => Ok(Rc::clone(place)),
            To::Open(text) => {
                let text = text.render(&grpc.core.bindings, scope)?;
                let unusable = |why| Failure::new(FailureKind::Request, format!("unusable target: {why}"));
                grpc.places.get(&text).map_err(unusable)
            }
        }
    }

    /// Its headers, filled in.
    pub(super) fn headers(&self, grpc: &Grpc, scope: &mut Scope) -> Result<HeaderMap, Failure> {
        let mut headers = self.headers.clone();
        for (name, text) in &self.metadata {
            let text = text.render(&grpc.core.bindings, scope)?;
            let value = fields::value_of(name, &text).map_err(|why| Failure::new(FailureKind::Request, why))?;
            headers.append(name.clone(), value);
        }
        Ok(headers)
    }

    /// JSON texts of its messages, filled in.
    pub(super) fn texts(&self, grpc: &Grpc, scope: &mut Scope) -> Result<Vec<String>, Failure> {
        self.payload.iter().map(|text| Ok(text.render(&grpc.core.bindings, scope)?.into_owned())).collect()
    }

    /// What it calls.
    pub(super) fn method(&self, grpc: &Grpc, descriptors: &Rc<Descriptors>) -> Result<Rc<Method>, Failure> {
        let mut known = self.known.borrow_mut();
        if let Some((of, method)) = &*known
            && Rc::ptr_eq(of, descriptors)
        {
            return method.clone();
        }
        let method = self.described(grpc, descriptors);
        *known = Some((Rc::clone(descriptors), method.clone()));
        method
    }

    fn described(&self, grpc: &Grpc, descriptors: &Descriptors) -> Result<Rc<Method>, Failure> {
        let refused = |fault: crate::protocol::Fault| Failure::new(FailureKind::Request, fault.message);
        let method = descriptors.method(&self.fields.wanted).map_err(refused)?;
        descriptors::fits(&method, &self.fields).map_err(refused)?;
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let path = path.parse().map_err(|_| Failure::new(FailureKind::Request, "a method whose name is no path"))?;
        let literal: Option<Vec<&str>> = self.payload.iter().map(Text::literal).collect();
        let body = literal.map(|texts| descriptors::encode(texts, &method.input())).transpose()?;
        let rpc = Rpc::of(&method);
        let series = grpc.core.messages.series(&self.name, MESSAGE, &grpc.scenario.name);
        Ok(Rc::new(Method { path, input: method.input(), output: method.output(), rpc, body, series }))
    }

    /// Indices of the data sources that its placeholders name.
    pub(super) fn sources(&self) -> Vec<u32> {
        let target = match &self.to {
            To::Fixed(_) => None,
            To::Open(text) => Some(text),
        };
        let metadata = self.metadata.iter().map(|(_, text)| text);
        target.into_iter().chain(metadata).chain(&self.payload).flat_map(Text::sources).collect()
    }
}
