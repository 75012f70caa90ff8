//! Progress of a document, told to whoever waits for it.

use crate::app::App;
use crate::remote::Job;
use ld_shared::id::RunId;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RoleServer};
use std::convert::Infallible;
use std::time::Duration;

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// How far a document is: seconds of its tests, one after another; it only grows.
#[derive(Default)]
struct Way {
    run: Option<RunId>,
    /// Seconds of tests before.
    before: f64,
    told: f64,
}

impl Way {
    /// How far it is, if it is farther than it was; and the end of this test, if it has one.
    fn at(&mut self, run: &RunId, elapsed: f64, planned: Option<f64>) -> Option<(f64, Option<f64>)> {
        if self.run.as_ref() != Some(run) {
            self.before = if self.run.is_some() { self.told } else { 0.0 };
            self.run = Some(run.clone());
        }
        let at = self.before + elapsed;
        if at <= self.told {
            return None;
        }
        self.told = at;
        Some((at, planned.map(|planned| self.before + planned.max(elapsed))))
    }
}

/// Tells the client where the job's test stands, each second. Never returns.
pub(super) async fn tell(app: &App, job: &Job, peer: &Peer<RoleServer>, token: Option<ProgressToken>) -> Infallible {
    let Some(token) = token else { std::future::pending().await };
    let mut way = Way::default();
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(now) = app.now().filter(|now| now.by == job.caller.shown()) else { continue };
        let progress = now.progress.borrow().clone();
        let Some((at, total)) = way.at(&now.run, progress.elapsed_s, progress.planned_s) else { continue };
        let planned = progress.planned_s.map_or(String::new(), |planned| format!(" of {planned:.0}"));
        let message = format!(
            "{}: {:.0}{planned} s, {} users, {:.0} requests/s, {} requests, {} failures",
            progress.state, progress.elapsed_s, progress.users, progress.rate, progress.requests, progress.failures
        );
        let told = ProgressNotificationParam::new(token.clone(), at).with_message(message);
        let told = total.into_iter().fold(told, ProgressNotificationParam::with_total);
        if let Err(error) = peer.notify_progress(told).await {
            tracing::debug!("no progress was told: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_grows() {
        let (a, b) = (RunId::random(), RunId::random());
        let mut way = Way::default();
        assert_eq!(way.at(&a, 0.0, Some(2.0)), None);
        assert_eq!(way.at(&a, 1.0, Some(2.0)), Some((1.0, Some(2.0))));
        assert_eq!(way.at(&a, 1.0, Some(2.0)), None);
        assert_eq!(way.at(&a, 2.5, Some(2.0)), Some((2.5, Some(2.5))));
        assert_eq!(way.at(&b, 0.5, None), Some((3.0, None)));
    }
}
