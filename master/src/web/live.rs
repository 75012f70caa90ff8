//! A run as it goes on, as server-sent events: one `second` event per finished second, each exactly
//! once and in order, then `end` with the verdict.
//!
//! Nothing is pushed: a stream reads the timeline, which is kept anyway, from where it stands, when its
//! client has taken what it was sent. So a slow client costs a position, and one that comes back with
//! `Last-Event-ID` goes on behind what it has seen. An id is the second; in a document of several tests
//! those of the second one are `2:0`, `2:1`, and so on.

use super::Web;
use super::problem::{Code, Problem};
use super::route::{Call, content, empty};
use super::runs::{Subject, verdict};
use crate::remote::{Job, JobState, Now};
use crate::run::timeline::{self, Second};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use ld_shared::boot::clock;
use ld_shared::time::Mono;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// The id of the last event.
const END: &str = "end";
/// How often the timeline is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// After so much silence a comment says that the stream is alive.
const SILENCE: Duration = Duration::from_secs(10);
/// A test that has ended is judged within this: its teardown comes before.
const JUDGED: Duration = Duration::from_mins(2);

/// Streams a run.
pub(super) async fn stream(web: Arc<Web>, call: Call) -> Result<Response, Problem> {
    let Some(place) = Place::of(call.headers.get(LAST_EVENT_ID))? else {
        // the one answer after which a browser does not come back
        return Ok(empty(StatusCode::NO_CONTENT));
    };
    let subject = Subject::find(&web, call.id()).await?;
    let permit = Arc::clone(&web.readers).try_acquire_owned().map_err(|_| {
        let problem = Problem::new(Code::TooMany, "too many live streams are open").param("most", super::MOST_READERS);
        problem.header(RETRY_AFTER, HeaderValue::from_static("5"))
    })?;
    let follower =
        Follower { web, subject, place, announced: None, known: 0, ended_at: None, over: false, _permit: permit };
    let events = futures_util::stream::unfold(follower, |mut follower| async {
        let bytes = follower.next().await?;
        Some((Ok::<_, Infallible>(bytes), follower))
    });
    let mut response = content(StatusCode::OK, "text/event-stream", Body::from_stream(events));
    response.headers_mut().insert(NO_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// How far a client has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    /// Tests that it has seen to their ends.
    tests: usize,
    /// The next second of the one after them.
    second: u32,
}

impl Place {
    /// Behind an id; `None`: behind the last event.
    fn of(id: Option<&HeaderValue>) -> Result<Option<Self>, Problem> {
        let Some(id) = id else { return Ok(Some(Self::default())) };
        let text = id.to_str().unwrap_or("?");
        if text == END {
            return Ok(None);
        }
        let (test, second) = text.split_once(':').unwrap_or(("1", text));
        let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let place = number(test).zip(number(second)).filter(|(test, _)| *test > 0);
        let place = place.map(|(test, second)| Self { tests: test as usize - 1, second: second.saturating_add(1) });
        place.map(Some).ok_or_else(|| {
            let problem = Problem::new(Code::BadValue, "`Last-Event-ID` is none of the ids that were sent");
            problem.at("#header/Last-Event-ID").param("name", "Last-Event-ID")
        })
    }

    fn id(self, second: u32) -> String {
        if self.tests == 0 { second.to_string() } else { format!("{}:{second}", self.tests + 1) }
    }
}

/// One client.
struct Follower {
    web: Arc<Web>,
    subject: Subject,
    place: Place,
    /// Id of the run that its seconds are of.
    announced: Option<String>,
    /// How many of the seconds of the test that goes on it was sent, or need not be.
    known: usize,
    /// Since when a test has ended whose verdict is not there yet.
    ended_at: Option<Mono>,
    /// Everything was said.
    over: bool,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    /// What to send next; `None`: the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        let since = clock::mono();
        loop {
            if self.over {
                return None;
            }
            // before the look: what was there when the process began to end is seen
            let ending = self.web.ending.is_cancelled();
            let mut text = String::new();
            self.look(&mut text);
            if !text.is_empty() {
                return Some(text.into());
            }
            if ending {
                return None;
            }
            if clock::mono() >= since.after(SILENCE) {
                return Some(Bytes::from_static(b": alive\n\n"));
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.web.ending.cancelled() => {}
            }
        }
    }

    /// Writes down what is new.
    fn look(&mut self, out: &mut String) {
        match &self.subject {
            Subject::Job(job) => self.look_at_job(&Arc::clone(job), out),
            Subject::Now(now) => self.look_at_now(&now.clone(), out),
            Subject::Over(run) => {
                let run = Arc::clone(run);
                self.run_over(&run, out);
                self.end(&json!(run.verdict), run.verdict.exit_code, out);
            }
            Subject::Kept(kept) => {
                let result = &kept.result;
                let rows = result["timeline"].as_array().into_iter().flatten();
                for row in rows {
                    let second = row["second"].as_u64().and_then(|second| u32::try_from(second).ok());
                    if let Some(second) = second.filter(|second| *second >= self.place.second) {
                        event(out, &second.to_string(), "second", row);
                    }
                }
                let verdict = result["verdict"].clone();
                let code = verdict["exit_code"].as_u64().and_then(|code| u8::try_from(code).ok()).unwrap_or_default();
                self.end(&verdict, code, out);
            }
        }
    }

    fn look_at_job(&mut self, job: &Job, out: &mut String) {
        // in this order: a job that is finished has all its runs
        let state = job.state();
        let runs = job.runs();
        while let Some(run) = runs.get(self.place.tests) {
            self.run_over(run, out);
            self.place = Place { tests: self.place.tests + 1, second: 0 };
        }
        match state {
            JobState::Finished(finished) => self.end(&json!(verdict(job)), finished.exit_code, out),
            JobState::Running => {
                let now = self.web.app.now();
                if let Some(now) = now.filter(|now| !runs.iter().any(|run| run.measured.run == now.run)) {
                    self.seconds(&now, out);
                }
            }
            JobState::Queued => {}
        }
    }

    fn look_at_now(&mut self, now: &Now, out: &mut String) {
        let (_, ended) = *now.seconds.watch().borrow();
        self.seconds(now, out);
        let over = self.web.app.state().runs.find(&now.run.0);
        if let Some(run) = over {
            self.run_over(&run, out);
            return self.end(&json!(run.verdict), run.verdict.exit_code, out);
        }
        // a test that could not be measured has no verdict
        let since = *self.ended_at.get_or_insert_with(clock::mono);
        if !ended {
            self.ended_at = None;
        } else if self.web.ending.is_cancelled() || clock::mono() >= since.after(JUDGED) {
            self.end(&Value::Null, crate::run::verdict::exit::NOT_RUN, out);
        }
    }

    /// New seconds of the test that goes on.
    fn seconds(&mut self, now: &Now, out: &mut String) {
        self.announce(&now.run.to_string(), now.label.as_deref(), out);
        let seconds = now.seconds.after(self.known);
        self.known += seconds.len();
        self.rows(&seconds, out);
    }

    /// What is left of a test that is over.
    fn run_over(&mut self, run: &crate::run::Run, out: &mut String) {
        self.announce(&run.measured.run.to_string(), run.label.as_deref(), out);
        self.rows(&timeline::of(&run.measured), out);
    }

    fn rows(&mut self, seconds: &[Second], out: &mut String) {
        // a row of several seconds that was seen in part is sent whole
        for second in seconds.iter().filter(|second| second.end() > self.place.second) {
            event(out, &self.place.id(second.second), "second", &json!(second));
        }
        if let Some(last) = seconds.last() {
            self.place.second = self.place.second.max(last.end());
        }
    }

    /// Says which run the seconds that follow are of.
    fn announce(&mut self, run: &str, label: Option<&str>, out: &mut String) {
        if self.announced.as_deref() == Some(run) {
            return;
        }
        let data = json!({"run": run, "label": label, "test": self.place.tests + 1});
        writeln!(out, "retry: 1000\nevent: run\ndata: {data}\n").expect("writing to a String cannot fail");
        self.announced = Some(run.to_owned());
        self.known = 0;
    }

    fn end(&mut self, verdict: &Value, exit_code: u8, out: &mut String) {
        event(out, END, "end", &json!({"verdict": verdict, "exit_code": exit_code}));
        self.over = true;
    }
}

/// JSON holds no line break: one line of data is enough.
fn event(out: &mut String, id: &str, name: &str, data: &Value) {
    writeln!(out, "id: {id}\nevent: {name}\ndata: {data}\n").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_goes_on_behind_what_it_has_seen() {
        let of = |text: &str| Place::of(Some(&HeaderValue::from_str(text).unwrap())).map_err(|problem| problem.code());
        assert_eq!(Place::of(None).unwrap(), Some(Place::default()));
        assert_eq!(of("17"), Ok(Some(Place { tests: 0, second: 18 })));
        assert_eq!(of("2:0"), Ok(Some(Place { tests: 1, second: 1 })));
        assert_eq!(of("end"), Ok(None));
        for bad in ["", "-1", "+1", "0:1", "1:", "x", "99999999999", "1:2:3"] {
            assert_eq!(of(bad), Err(Code::BadValue), "{bad}");
        }
        assert_eq!([0, 1].map(|tests| Place { tests, second: 0 }.id(7)), ["7", "2:7"]);
    }
}
