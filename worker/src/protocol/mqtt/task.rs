//! A step compiled once, and its placeholders filled in for one exchange.

use super::fields::{self, DEFAULT_BROKER, LoginFields, Method, Payload, SCHEMES, Step};
use super::packet::{self, Login, MAX_TEXT, Version, Will};
use crate::protocol::expect::{Expect, Expected};
use crate::protocol::target::Target;
use crate::protocol::text::Text;
use bytes::Bytes;
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::scope::{Bindings, Scope};
use ld_shared::template::Template;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

/// A step, compiled.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of documents")]
pub struct Task {
    pub(super) method: Method,
    /// Name of a task that has none of its own.
    pub(super) default_name: Arc<str>,
    /// Name of what arrives by a subscription.
    pub(super) messages_name: Arc<str>,
    pub(super) timeout: Option<f64>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) stamp: bool,
    pub(super) abrupt: bool,
    pub(super) has_login: bool,
    broker: Option<Broker>,
    topic: Text,
    payload: Text,
    /// The payload, if it is always the same.
    fixed: Option<Bytes>,
    expect: Option<Expect>,
    login: LoginTexts,
    properties: Option<PropertyTexts>,
}

enum Broker {
    Fixed(Target, Box<str>),
    Rendered(Text),
}

struct LoginTexts {
    version: Version,
    username: Text,
    password: Text,
    client_id: Option<Text>,
    keepalive: u16,
    clean_start: bool,
    session_expiry: Option<u32>,
    will: Option<WillTexts>,
}

struct WillTexts {
    topic: Text,
    payload: Text,
    qos: u8,
    retain: bool,
}

struct PropertyTexts {
    user: Vec<(String, Text)>,
    message_expiry: Option<u32>,
    content_type: Option<Text>,
    response_topic: Option<Text>,
    correlation_data: Option<Text>,
}

/// Where and how to connect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ways {
    pub(super) target: Target,
    pub(super) login: Login,
}

/// A step with its placeholders filled in.
pub(super) struct Request<'a> {
    /// How to connect first; `None`: the open connection serves.
    pub(super) ways: Option<Rc<Ways>>,
    pub(super) topic: Cow<'a, str>,
    pub(super) payload: Bytes,
    pub(super) expected: Option<Expected<'a>>,
    pub(super) properties: Option<Box<PublishProperties>>,
}

impl Task {
    pub(super) fn compile(step: &Step, name: Option<&str>, bindings: &Bindings) -> Self {
        let text = |text: &str| Text::compile(text, bindings);
        let payload = compile_payload(&step.payload, bindings);
        let topic = Template::compile_name(&step.topic, bindings);
        let broker = step.broker.as_deref().map(|broker| {
            let compiled = text(broker);
            let target = compiled.literal().and_then(|text| Target::parse(text, &SCHEMES).ok());
            match (target, compiled) {
                (Some(target), Text::Literal(shown)) => Broker::Fixed(target, shown),
                (_, compiled) => Broker::Rendered(compiled),
            }
        });
        let properties = step.properties.as_ref().map(|properties| PropertyTexts {
            user: properties.user.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            message_expiry: properties.message_expiry,
            content_type: properties.content_type.as_deref().map(text),
            response_topic: properties.response_topic.as_deref().map(text),
            correlation_data: properties.correlation_data.as_deref().map(text),
        });
        Self {
            method: step.method,
            default_name: format!("{}:{topic}", step.method.name()).into(),
            messages_name: name.filter(|name| !name.contains("${")).map_or_else(|| topic.into(), Arc::from),
            timeout: step.timeout,
            qos: step.qos,
            retain: step.retain,
            stamp: step.stamp,
            abrupt: step.abrupt,
            has_login: step.has_login,
            broker,
            topic: text(&step.topic),
            fixed: payload.literal().map(|text| Bytes::copy_from_slice(text.as_bytes())),
            payload,
            expect: step.expect.as_ref().map(|expect| expect.compile(bindings)),
            login: LoginTexts::compile(&step.login, bindings),
            properties,
        }
    }

    /// The broker that the step names.
    pub(super) fn target(&self, bindings: &Bindings, scope: &mut Scope) -> Result<Option<Cow<'_, Target>>, Failure> {
        match &self.broker {
            None => Ok(None),
            Some(Broker::Fixed(target, _)) => Ok(Some(Cow::Borrowed(target))),
            Some(Broker::Rendered(text)) => {
                let target = Target::parse(&text.render(bindings, scope)?, &SCHEMES);
                let target = target.map_err(|_| Failure::new(FailureKind::Request, "unusable broker"))?;
                Ok(Some(Cow::Owned(target)))
            }
        }
    }

    /// The broker as records show it.
    pub(super) fn shown_broker(&self, bindings: &Bindings, scope: &mut Scope) -> Option<Arc<str>> {
        match self.broker.as_ref()? {
            Broker::Fixed(_, shown) => Some((**shown).into()),
            Broker::Rendered(text) => text.render(bindings, scope).ok().map(|text| text.as_ref().into()),
        }
    }

    /// How the step itself says to connect to `target`.
    pub(super) fn ways(
        &self,
        target: Target,
        own_id: impl FnOnce() -> String,
        bindings: &Bindings,
        scope: &mut Scope,
    ) -> Result<Ways, Failure> {
        let login = &self.login;
        let client_id = match &login.client_id {
            Some(text) => text.render(bindings, scope)?.into_owned(),
            None => own_id(),
        };
        let will = match &login.will {
            None => None,
            Some(will) => {
                let topic = will.topic.render(bindings, scope)?.into_owned();
                check(packet::topic_fault(&topic))?;
                let mut payload = Vec::new();
                will.payload.fill(bindings, scope, &mut payload)?;
                Some(Will { topic, payload, qos: will.qos, retain: will.retain })
            }
        };
        let login = Login {
            version: login.version,
            client_id,
            username: login.username.render(bindings, scope)?.into_owned(),
            password: login.password.render(bindings, scope)?.into_owned(),
            keepalive: login.keepalive,
            clean_start: login.clean_start,
            session_expiry: login.session_expiry,
            will,
        };
        let texts = [&login.client_id, &login.username, &login.password];
        let too_long = texts.iter().any(|text| text.len() > MAX_TEXT)
            || login.will.as_ref().is_some_and(|will| will.payload.len() > MAX_TEXT);
        check(too_long.then_some("a text above 65535 bytes"))?;
        Ok(Ways { target, login })
    }

    /// Fills in what the step sends or waits for.
    pub(super) fn fill<'a>(
        &'a self,
        ways: Option<Rc<Ways>>,
        bindings: &Bindings,
        scope: &mut Scope,
    ) -> Result<Request<'a>, Failure> {
        let topic = self.topic.render(bindings, scope)?;
        if self.topic.literal().is_none() {
            check(match self.method {
                Method::Connect | Method::Disconnect => None,
                Method::Publish => packet::topic_fault(&topic),
                Method::Subscribe | Method::Receive | Method::Unsubscribe => packet::filter_fault(&topic),
            })?;
        }
        let payload = if let Some(fixed) = &self.fixed {
            fixed.clone()
        } else {
            let mut payload = Vec::new();
            self.payload.fill(bindings, scope, &mut payload)?;
            payload.into()
        };
        let expected = self.expect.as_ref().map(|expect| expect.fill(bindings, scope)).transpose()?;
        let properties = match &self.properties {
            Some(properties) if self.method == Method::Publish => Some(Box::new(properties.fill(bindings, scope)?)),
            _ => None,
        };
        Ok(Request { ways, topic, payload, expected, properties })
    }

    /// Indices of the data sources that it names.
    pub(super) fn sources(&self) -> Vec<u32> {
        let (login, properties) = (&self.login, self.properties.as_ref());
        let mut texts = vec![&self.topic, &self.payload, &login.username, &login.password];
        if let Some(Broker::Rendered(text)) = &self.broker {
            texts.push(text);
        }
        texts.extend(&login.client_id);
        texts.extend(login.will.iter().flat_map(|will| [&will.topic, &will.payload]));
        texts.extend(properties.into_iter().flat_map(|p| p.user.iter().map(|(_, text)| text)));
        texts.extend(
            properties
                .into_iter()
                .flat_map(|p| [&p.content_type, &p.response_topic, &p.correlation_data].into_iter().flatten()),
        );
        let mut sources: Vec<u32> = texts.into_iter().flat_map(Text::sources).collect();
        sources.extend(self.expect.iter().flat_map(Expect::sources));
        sources.sort_unstable();
        sources.dedup();
        sources
    }
}

impl LoginTexts {
    fn compile(fields: &LoginFields, bindings: &Bindings) -> Self {
        let text = |text: &str| Text::compile(text, bindings);
        Self {
            version: fields.version,
            username: text(&fields.username),
            password: text(&fields.password),
            client_id: fields.client_id.as_deref().map(text),
            keepalive: fields.keepalive,
            clean_start: fields.clean_start,
            session_expiry: fields.session_expiry,
            will: fields.will.as_ref().map(|will| WillTexts {
                topic: text(&will.topic),
                payload: compile_payload(&will.payload, bindings),
                qos: will.qos,
                retain: will.retain,
            }),
        }
    }
}

impl PropertyTexts {
    fn fill(&self, bindings: &Bindings, scope: &mut Scope) -> Result<PublishProperties, Failure> {
        let mut text = |text: &Text| Ok::<_, Failure>(text.render(bindings, scope)?.into_owned());
        let mut user_properties = Vec::with_capacity(self.user.len());
        for (name, value) in &self.user {
            user_properties.push((name.clone(), text(value)?));
        }
        let content_type = self.content_type.as_ref().map(&mut text).transpose()?;
        let response_topic = self.response_topic.as_ref().map(&mut text).transpose()?;
        let correlation_data = self.correlation_data.as_ref().map(&mut text).transpose()?;
        let named = [&content_type, &response_topic, &correlation_data].into_iter().flatten();
        let too_long = user_properties.iter().flat_map(|(name, value)| [name, value]).chain(named);
        check(too_long.into_iter().any(|text| text.len() > MAX_TEXT).then_some("a text above 65535 bytes"))?;
        Ok(PublishProperties {
            user_properties,
            message_expiry_interval: self.message_expiry,
            content_type,
            response_topic,
            correlation_data: correlation_data.map(Bytes::from),
            ..PublishProperties::default()
        })
    }
}

fn compile_payload(payload: &Payload, bindings: &Bindings) -> Text {
    match payload {
        Payload::Text(text) => Text::compile(text, bindings),
        Payload::Json(value) => Text::compile_json(value, bindings),
    }
}

fn check(fault: Option<&'static str>) -> Result<(), Failure> {
    fault.map_or(Ok(()), |fault| Err(Failure::new(FailureKind::Request, fault)))
}

/// The test's host, or the default.
pub(super) fn default_target(host: Option<&str>) -> Result<Target, Failure> {
    Target::parse(host.unwrap_or(DEFAULT_BROKER), &fields::SCHEMES)
        .map_err(|_| Failure::new(FailureKind::Request, "the test's host is no broker"))
}
