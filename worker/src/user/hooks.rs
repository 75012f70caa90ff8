//! What a user does before its first and after its last iteration. No part of any iteration: its
//! requests are of [`ld_shared::sample::Phase::Hooks`], and a failed one keeps nobody from going on.

use super::{Task, User};
use crate::probe::Purpose;
use ld_shared::frame::{Collected, MOST_COLLECTED};
use ld_shared::rng::KeyedRng;
use std::ops::ControlFlow;
use std::rc::Rc;

/// How a user's life began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Began {
    /// It may iterate.
    Ready,
    /// Its time was over while it began: it has only to end.
    Over,
    /// Nothing of it ever started.
    Never,
}

impl User {
    /// Runs `on_start`. Random numbers come from `rng`, rows of sources that cycle from `number`.
    pub(crate) async fn start(&mut self, rng: KeyedRng, number: u64) -> Began {
        let scenario = Rc::clone(&self.scenario);
        if scenario.on_start().is_empty() {
            return Began::Ready;
        }
        self.draw_from(rng, number);
        self.purpose = Purpose::Start;
        let flow = Box::pin(self.hook(scenario.on_start())).await;
        self.end_sessions();
        match flow {
            ControlFlow::Continue(()) => Began::Ready,
            ControlFlow::Break(()) if self.sent => Began::Over,
            ControlFlow::Break(()) => Began::Never,
        }
    }

    /// Runs `on_stop`, as far as the grace allows.
    pub(crate) async fn stop(&mut self, rng: KeyedRng, number: u64) {
        let scenario = Rc::clone(&self.scenario);
        if scenario.on_stop().is_empty() {
            return;
        }
        if let Some(base) = &self.base {
            // the last arrival's extracts are not the user's
            self.scope.clone_from(base);
        }
        self.draw_from(rng, number);
        self.purpose = Purpose::Stop;
        if self.until_lease().await.is_break() {
            return;
        }
        // a break says that the lease is over: then there is nothing more to do anyway
        Box::pin(self.hook(scenario.on_stop())).await.is_break();
    }

    async fn hook(&mut self, tasks: &[Task]) -> ControlFlow<()> {
        let collects = self.core.shared.plan.collect && self.purpose == Purpose::Start;
        let mut intended = None;
        for (index, task) in tasks.iter().enumerate() {
            let flow = self.step(task, &mut intended).await;
            if collects {
                let failure = match (flow, &self.failed) {
                    (ControlFlow::Break(()), _) => Some("it was stopped".into()),
                    (_, Some(failed)) => Some(failed.reason.to_string()),
                    (ControlFlow::Continue(()), None) => None,
                };
                if let Some(why) = failure {
                    let name = self.scenario.task_name(task);
                    self.collect(Some(format!("step {} of {}, {name}: {why}", index + 1, tasks.len())));
                    return ControlFlow::Break(());
                }
            }
            flow?;
        }
        if collects {
            self.collect(None);
        }
        ControlFlow::Continue(())
    }

    /// Hands what a setup brought about to the master.
    fn collect(&self, failure: Option<String>) {
        let variables = self.scope.extracted(&self.core.context.bindings);
        let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.to_string().len() + 4).sum();
        let recorder = &self.core.recorder;
        if bytes > MOST_COLLECTED {
            let why = format!("it extracted {bytes} bytes; at most {MOST_COLLECTED} can be handed to all users");
            let failure = failure.or(Some(why));
            recorder.collected(Collected { failure, ..Collected::default() });
        } else {
            recorder.collected(Collected { variables, failure });
        }
    }
}
