//! Server-sent events: `sse_user`.
//!
//! A task is one request of HTTP/1.1 whose answer is a stream of events ([`events::Events`]). It ends
//! with what the task waits for, and that is its service time; each event on the way is a message.

mod events;
mod fields;
mod stream;

#[cfg(test)]
mod tests;

use super::expect::{Expect, Expected};
use super::http::requests::{Prepared, Requests, SSE_USER, Target};
use super::{CoreContext, Fault, PrepareError, Protocol, Want};
use crate::dial::{Dialer, Stamps, Stream, TlsSettings};
use crate::messages::MessageSeries;
use crate::probe::Probe;
use ld_shared::plan::{ScenarioPlan, TaskPlan};
use ld_shared::reply::Reply;
use ld_shared::sample::{Failure, FailureKind};
use ld_shared::scope::Scope;
use ld_shared::secrets::mask_passwords;
use ld_shared::template::Template;
use serde_json::{Map, Value};
use std::rc::Rc;
use std::sync::Arc;
use stream::{Listener, Series};

/// Most URLs of which one user keeps the last id; the oldest give way.
const MAX_IDS: usize = 16;

/// Server-sent events on one core, for one scenario.
pub struct Sse {
    core: Rc<CoreContext>,
    scenario: ScenarioPlan,
    dialer: Dialer,
    requests: Requests,
    tls: TlsSettings,
}

/// A task, compiled.
pub struct Task {
    request: Prepared,
    events: Option<u64>,
    until: Option<Expect>,
    event: Option<Box<str>>,
    duration: Option<f64>,
    resumes: bool,
    timeout: f64,
    /// Of its messages: the first event, and those after it.
    series: [MessageSeries; 2],
}

/// The last ids of a user's streams, by what was asked for.
#[derive(Debug, Default)]
pub struct Session {
    ids: Vec<(Box<[u8]>, Box<str>)>,
}

impl Protocol for Sse {
    const KEYS: &'static [&'static str] = &[SSE_USER];
    const FIELDS: &'static [&'static str] = fields::FIELDS;
    const NO_ANSWER: Option<u16> = Some(0);
    type Task = Task;
    type Session = Session;

    fn schema() -> Value {
        fields::schema()
    }

    fn check(fields: &Map<String, Value>, scenario: &ScenarioPlan) -> Vec<Fault> {
        fields::parse(fields, scenario).err().unwrap_or_default()
    }

    fn label(fields: &Map<String, Value>, _scenario: &ScenarioPlan) -> Option<(String, String)> {
        let url = ["request_url", "url"].iter().find_map(|key| fields.get(*key).and_then(Value::as_str));
        Some(("SSE".to_owned(), url.unwrap_or_default().to_owned()))
    }

    fn new(core: Rc<CoreContext>, scenario: &ScenarioPlan) -> Result<Self, PrepareError> {
        let tls = TlsSettings::new(&scenario.tls, &core.blobs).map_err(|error| PrepareError(error.to_string()))?;
        Ok(Self {
            scenario: scenario.clone(),
            dialer: Dialer::of(&core.plan),
            requests: Requests::default(),
            tls,
            core,
        })
    }

    fn compile(&self, task: &TaskPlan) -> Result<Task, PrepareError> {
        let own = fields::parse(&task.fields, &self.scenario).map_err(|faults| PrepareError::of(&faults))?;
        let bindings = &self.core.bindings;
        let fields = fields::request(&task.fields);
        let request = self.requests.compile(&fields, &self.scenario, SSE_USER, self.tls.verify(), bindings)?;
        let name = match &task.name {
            Some(name) => Template::compile_name(name, bindings).into(),
            None => Arc::clone(&request.written),
        };
        let name = mask_passwords(&name);
        let name = bindings.secrets().mask(&name);
        let series = |name: &str, kind: &str| self.core.messages.series(name, kind, &self.scenario.name);
        Ok(Task {
            // results add up what has one name: the time to the first event must not mix with gaps
            series: [series(&format!("{name} (first)"), "SSE first event"), series(&name, "SSE event")],
            request,
            events: own.events,
            until: own.until.map(|until| until.compile(bindings)),
            event: own.event.map(Into::into),
            duration: own.duration,
            resumes: own.resumes,
            timeout: own.timeout,
        })
    }

    fn session(&self) -> Session {
        Session::default()
    }

    fn request_type<'a>(&self, _task: &'a Task) -> &'a str {
        "SSE"
    }

    fn default_name(&self, task: &Task) -> Arc<str> {
        Arc::clone(&task.request.written)
    }

    fn sources(&self, task: &Task) -> Vec<u32> {
        let mut sources = task.request.sources();
        sources.extend(task.until.iter().flat_map(Expect::sources));
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    fn timeout(&self, task: &Task) -> Option<f64> {
        Some(task.timeout)
    }

    fn url(&self, task: &Task, scope: &mut Scope) -> Arc<str> {
        self.requests.url(&task.request, &self.core.bindings, scope)
    }

    fn begin<'a>(
        &'a self,
        task: &'a Task,
        session: &'a mut Session,
        scope: &mut Scope,
        probe: &'a mut Probe,
        want: Want,
    ) -> Result<impl Future<Output = Result<Reply, Failure>> + use<'a>, Failure> {
        let bindings = &self.core.bindings;
        let mut request = Vec::new();
        let target = self.requests.fill(&task.request, bindings, scope, &mut request)?;
        let until = task.until.as_ref().map(|until| until.fill(bindings, scope)).transpose()?;
        Ok(self.exchange(task, session, target, request, until, probe, want))
    }

    fn end_iteration(&self, _session: &mut Session) {}
}

impl Sse {
    #[expect(clippy::too_many_arguments, reason = "what begin has filled in, and where it goes")]
    async fn exchange(
        &self,
        task: &Task,
        session: &mut Session,
        target: Target,
        mut request: Vec<u8>,
        until: Option<Expected<'_>>,
        probe: &mut Probe,
        want: Want,
    ) -> Result<Reply, Failure> {
        let asked = task.resumes.then(|| asked_for(&target, &request));
        if let Some(asked) = &asked {
            session.resume(asked, &mut request);
        }
        probe.start()?;
        let mut listener = Listener::new(task, until, want, Series { messages: &self.core.messages, of: task.series });
        let outcome = match Box::pin(self.open(&target, probe)).await {
            Ok(stream) => listener.listen(stream, &request, &self.core.scratch, probe).await,
            Err(failure) => Err(failure),
        };
        probe.end(listener.received());
        if let (Some(asked), Some(id)) = (asked, listener.last_id()) {
            session.keep(asked, id);
        }
        outcome?;
        Ok(listener.into_reply())
    }

    async fn open(&self, target: &Target, probe: &mut Probe) -> Result<Stream, Failure> {
        let config = if target.is_https {
            let config = self.tls.config(target.verify, &[b"http/1.1"]);
            Some(config.map_err(|error| Failure::new(FailureKind::Tls, error.to_string()))?)
        } else {
            None
        };
        let limit = self.scenario.connect_timeout;
        self.dialer.open(&target.host, target.port, config, limit, &mut Stamps(Some(probe))).await
    }
}

/// What tells one stream from another: its place, and the request's first line.
fn asked_for(target: &Target, request: &[u8]) -> Box<[u8]> {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let place = format!("{:?} {} ", target.host, target.port);
    [place.as_bytes(), line].concat().into()
}

impl Session {
    /// Adds the last id of what is asked for, if there is one, to the request's head.
    fn resume(&self, asked: &[u8], request: &mut Vec<u8>) {
        let Some((_, id)) = self.ids.iter().find(|(of, _)| **of == *asked).filter(|(_, id)| !id.is_empty()) else {
            return;
        };
        let first_line = request.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        request.splice(first_line..first_line, format!("Last-Event-ID: {id}\r\n").into_bytes());
    }

    fn keep(&mut self, asked: Box<[u8]>, id: &str) {
        if let Some((_, kept)) = self.ids.iter_mut().find(|(of, _)| *of == asked) {
            *kept = id.into();
            return;
        }
        if self.ids.len() >= MAX_IDS {
            self.ids.remove(0);
        }
        self.ids.push((asked, id.into()));
    }
}
