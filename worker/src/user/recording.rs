//! What becomes of a request that ended: judged, counted, and listed for those who list single ones.

use super::{Failed, Name, Task, User};
use crate::kept::Kept;
use crate::recorder::{Line, Sample};
use crate::sampler::Ticket;
use crate::series::OTHER_ID;
use ld_shared::plan::StatusCheck;
use ld_shared::record::Answer;
use ld_shared::reply::Reply;
use ld_shared::sample::{Failure, FailureKind, Phase};
use ld_shared::secrets::{MASK, Secrets, is_credential, mask_passwords};
use ld_shared::template::{Escape, Template};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

impl User {
    /// Judges what came of a request, counts it, and lists it if it is one of those.
    pub(super) fn record(&mut self, task: &Task, outcome: Result<Reply, Failure>, keep: &Ticket) {
        let bindings = &self.core.context.bindings;
        let status = outcome.as_ref().ok().and_then(|reply| reply.status);
        let (reply, failure) = match outcome {
            Ok(reply) => {
                let failure = task.checks.run(&reply, bindings, &mut self.scope, task.status_check).err();
                (Some(reply), failure)
            }
            Err(failure) => {
                // the seed lets a `status_code` assertion of 0 accept that there was no answer
                let none = Reply { status: task.no_answer, ..Reply::default() };
                let accepted = task.no_answer.is_some()
                    && task.checks.may_accept_no_answer()
                    && task.checks.run(&none, bindings, &mut self.scope, StatusCheck::Assertions).is_ok();
                (None, (!accepted).then_some(failure))
            }
        };
        let failure = failure.map(|failure| masked(failure, bindings.secrets()));
        let series = match &task.name {
            Name::Fixed(series) => *series,
            Name::Rendered(template, numbers) => self.rendered_series(task, template, numbers),
        };
        let sample = self.probe.sample(series);
        self.core.recorder.record(&sample, failure.as_ref());
        if let Some(Failure { kind, reason }) = &failure {
            self.failed = Some(Failed { kind: *kind, status, reason: Arc::clone(reason) });
        }
        if sample.phase == Phase::Main {
            self.list(task, &sample, reply, failure, keep);
        }
    }

    /// Hands the request over to those who list requests one by one.
    fn list(&mut self, task: &Task, sample: &Sample, reply: Option<Reply>, failure: Option<Failure>, keep: &Ticket) {
        let mut sampler = self.core.sampler.borrow_mut();
        let (keeps, all) = (sampler.keeps(keep, failure.is_some()), sampler.wants_all());
        drop(sampler);
        if !keeps && !all {
            return;
        }
        let url = task.users.url(task.compiled.as_ref(), &mut self.scope);
        let url = masked_text(&url, self.core.context.bindings.secrets()).unwrap_or(url);
        let failure = failure.map(|failure| self.told(task, sample, reply.as_ref(), failure, &url));
        if all {
            self.core.recorder.list(Line {
                series: sample.series,
                status: reply.as_ref().map_or(task.no_answer, |r| r.status),
                started_at: sample.started.saturating_sub(self.core.recorder.t0()),
                response_us: response_us(sample),
                body_bytes: reply.as_ref().map_or(0, |r| r.body_bytes),
                url: Arc::clone(&url),
                error: failure.as_ref().map(|f| Arc::clone(&f.reason)),
            });
        }
        if keeps {
            self.core.recorder.keep(self.kept(task, sample, reply, failure, keep, url));
        }
    }

    /// A failure as its record tells it.
    fn told(&self, task: &Task, sample: &Sample, reply: Option<&Reply>, failure: Failure, url: &str) -> Failure {
        // the seed's texts, which are those of its language
        let seeds = match &*failure.reason {
            "connection refused" => Some("[Errno 111] Connection refused"),
            "name not resolved" => Some("[Errno -2] Name or service not known"),
            _ => None,
        };
        if let Some(text) = seeds {
            return Failure::new(failure.kind, text);
        }
        let Some(status) = reply.and_then(|r| r.status).filter(|_| failure.kind == FailureKind::Status) else {
            return failure;
        };
        let name = self.scenario.name_of(sample.series);
        let text = task.users.status_error(task.compiled.as_ref(), status, url, &name);
        text.map_or(failure, |text| Failure::new(FailureKind::Status, text))
    }

    fn rendered_series(&mut self, task: &Task, template: &Template, numbers: &RefCell<HashMap<Box<str>, u16>>) -> u16 {
        let mut name = Vec::new();
        let rendered = template.render(&self.core.context.bindings, &mut self.scope, Escape::None, &mut name);
        let (Ok(()), Ok(name)) = (rendered, String::from_utf8(name)) else { return OTHER_ID };
        if let Some(id) = numbers.borrow().get(name.as_str()) {
            return *id;
        }
        let shown = masked_text(&name, self.core.context.bindings.secrets());
        let id = self.scenario.series(shown.as_deref().unwrap_or(&name), &task.request_type);
        if id != OTHER_ID {
            // the table's limit bounds this map too
            numbers.borrow_mut().insert(name.into(), id);
        }
        id
    }

    fn kept(
        &self,
        task: &Task,
        sample: &Sample,
        reply: Option<Reply>,
        failure: Option<Failure>,
        keep: &Ticket,
        url: Arc<str>,
    ) -> Kept {
        let cap = keep.body[usize::from(failure.is_some())];
        let status = reply.as_ref().map_or(task.no_answer, |r| r.status);
        let body_bytes = reply.as_ref().map_or(0, |r| r.body_bytes);
        let answer = reply.filter(|_| cap > 0).map(|reply| {
            let mut body = reply.body;
            let is_cut = body.len() >= cap;
            body.truncate(cap);
            let secrets = self.core.context.bindings.secrets();
            if !secrets.is_empty() {
                body = secrets.mask_bytes(&body).into_owned();
                if is_cut {
                    secrets.mask_cut(&mut body);
                }
            }
            let shown = |(name, value): (String, String)| {
                let value = if is_credential(&name) { MASK.into() } else { secrets.mask(&value).into_owned() };
                (name, value)
            };
            Arc::new(Answer { headers: reply.headers.iter().map(shown).collect(), body })
        });
        Kept {
            priority: keep.priority,
            ended_at: sample.ended.saturating_sub(self.core.recorder.t0()),
            started_at: sample.started.saturating_sub(self.core.recorder.t0()),
            response_us: response_us(sample),
            body_bytes,
            url,
            error: failure.map(|f| f.reason),
            answer,
            status,
            series: sample.series,
            origin: task.origin,
        }
    }
}

/// A failure without secrets in its reason.
pub(crate) fn masked(failure: Failure, secrets: &Secrets) -> Failure {
    match masked_text(&failure.reason, secrets) {
        Some(reason) => Failure { reason, ..failure },
        None => failure,
    }
}

/// The text without secrets and passwords, if it had any.
pub(crate) fn masked_text(text: &str, secrets: &Secrets) -> Option<Arc<str>> {
    let plain = mask_passwords(text);
    let masked = secrets.mask(&plain);
    (*masked != *text).then(|| masked.into())
}

/// Response time as histograms count it.
fn response_us(sample: &crate::recorder::Sample) -> u64 {
    (sample.ended.saturating_sub(sample.intended) + 500) / 1000
}
