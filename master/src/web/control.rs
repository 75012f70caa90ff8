//! The load of the test that goes on, changed.

use super::Web;
use super::problem::{Code, Problem};
use super::route::{Call, json};
use super::runs::{Subject, test};
use crate::cluster::ChangeError;
use crate::remote::Now;
use axum::response::Response;
use http::StatusCode;
use ld_shared::load::What;
use std::sync::Arc;

/// Sets users.
pub(super) async fn users(web: Arc<Web>, call: Call) -> Result<Response, Problem> {
    let users = call.whole("users").unwrap_or_default();
    change(&web, &call, |now| Ok(What::SetUsers { scenario: scenario(&call, now)?, users })).await
}

/// Sets the rate.
pub(super) async fn rate(web: Arc<Web>, call: Call) -> Result<Response, Problem> {
    let rate = call.number("rate").unwrap_or_default();
    change(&web, &call, |now| Ok(What::SetRate { scenario: scenario(&call, now)?, rate })).await
}

/// Pauses.
pub(super) async fn pause(web: Arc<Web>, call: Call) -> Result<Response, Problem> {
    change(&web, &call, |_| Ok(What::Pause)).await
}

/// Goes on.
pub(super) async fn resume(web: Arc<Web>, call: Call) -> Result<Response, Problem> {
    change(&web, &call, |_| Ok(What::Resume)).await
}

async fn change(web: &Web, call: &Call, what: impl FnOnce(&Now) -> Result<What, Problem>) -> Result<Response, Problem> {
    let subject = Subject::find(web, call.id()).await?;
    let now = subject.now(web).ok_or_else(not_running)?;
    let what = what(&now)?;
    if let Err(refused) = web.options.policy.may_change(what) {
        let problem = Problem::new(Code::NotAllowed, refused.message);
        return Err(refused.help.into_iter().fold(problem, Problem::help));
    }
    web.app.cluster_now().change(what, &call.by).await.map_err(|error| refused(&error))?;
    Ok(json(StatusCode::OK, &test(&now)))
}

/// The scenario that is meant: by name, by number, or the only one.
fn scenario(call: &Call, now: &Now) -> Result<u32, Problem> {
    let scenarios = &now.plan.scenarios;
    let names = || scenarios.iter().map(|scenario| &*scenario.name);
    let Some(name) = call.text("scenario") else {
        if scenarios.len() == 1 {
            return Ok(0);
        }
        let problem = Problem::new(Code::NoSuchScenario, "the test has several scenarios: say which by `scenario`");
        return Err(problem.at("/scenario").param("scenarios", names().collect::<Vec<_>>()));
    };
    let by_name = names().position(|known| known == name).and_then(|index| u32::try_from(index).ok());
    let by_number = || name.parse().ok().filter(|index| (*index as usize) < scenarios.len());
    by_name.or_else(by_number).ok_or_else(|| {
        let help = ld_shared::fault::did_you_mean(name, names());
        let problem = Problem::new(Code::NoSuchScenario, format!("the test has no scenario `{name}`")).help(help);
        problem.at("/scenario").param("scenario", name).param("scenarios", names().collect::<Vec<_>>())
    })
}

fn not_running() -> Problem {
    Problem::new(Code::NotRunning, "it runs no test now")
}

fn refused(error: &ChangeError) -> Problem {
    let problem = |code| Problem::new(code, error.to_string());
    match error {
        ChangeError::NotRunning => not_running(),
        ChangeError::NoScenario(index) => problem(Code::NoSuchScenario).at("/scenario").param("scenario", *index),
        ChangeError::OtherModel { scenario, has } => {
            problem(Code::OtherModel).param("scenario", scenario.as_str()).param("has", *has)
        }
        ChangeError::Rate => problem(Code::BadValue).at("/rate"),
        ChangeError::Capacity { needed, capacity } => {
            problem(Code::NoCapacity).param("needed", *needed).param("capacity", *capacity)
        }
        ChangeError::Nothing(_) => problem(Code::AlreadySo),
        ChangeError::TooMany => problem(Code::ChangedTooOften),
    }
}
