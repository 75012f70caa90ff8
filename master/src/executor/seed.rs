//! What an action is given beside its own words when it is to run as the seed runs it.

use crate::command::Commands;
use crate::script::{self, Action, Arguments};
use serde_json::{Value, json};

/// The seed's pause after each iteration, seconds.
const PAUSE: [f64; 2] = [0.1, 0.2];
/// What the seed joins a relative URL to.
const HOST: &str = "http://localhost";

/// Gives a test the seed's pause, its rule about statuses and its target of relative URLs, unless
/// the action says otherwise.
pub(super) fn prepare(action: &mut Action, commands: &Commands) {
    if action.name == "LD_add_package_to_executor" {
        return add_package(action, commands);
    }
    let Some(spec) = commands.spec(&action.name).filter(|spec| spec.name == "LD_start_test") else { return };
    let most = script::positional(spec).count();
    if action.malformed.is_some() || matches!(&action.arguments, Arguments::Positional(values) if values.len() > most) {
        return;
    }
    let mut arguments = action.named(spec);
    let user = arguments.get("user_detail_dict").and_then(|detail| detail.get("user"));
    let http = user.is_none_or(|user| matches!(user.as_str(), Some("fast_http_user" | "http_user")));
    let absent = |key: &str| arguments.get(key).is_none_or(Value::is_null);
    let mut more = Vec::new();
    if absent("wait_time") && absent("arrival_rate") {
        more.push(("wait_time", json!(PAUSE)));
    }
    if absent("status_check") {
        more.push(("status_check", "assertions".into()));
    }
    if http && absent("host") {
        more.push(("host", HOST.into()));
    }
    arguments.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
    action.arguments = Arguments::Named(arguments);
}

/// The seed only prints that a package cannot be loaded.
fn add_package(action: &mut Action, commands: &Commands) {
    let Some(spec) = commands.spec(&action.name).filter(|_| action.malformed.is_none()) else { return };
    let mut arguments = action.named(spec);
    arguments.entry("optional").or_insert(true.into());
    action.arguments = Arguments::Named(arguments);
}
