//! Parts of plans, for suites that need no document.

use ld_shared::load::Load;
use ld_shared::plan::{Connections, HttpVersion, Mode, ScenarioPlan, StatusCheck, TaskPlan, TlsPlan};
use serde_json::Map;

/// A scenario of one task, without hooks and pauses.
pub fn scenario(load: Load) -> ScenarioPlan {
    ScenarioPlan {
        name: "s".into(),
        user: "fast_http_user".into(),
        load,
        first_number: 0,
        mode: Mode::Sequence,
        tasks: vec![task()],
        on_start: Vec::new(),
        on_stop: Vec::new(),
        wait_time: None,
        host: None,
        connections: Connections::PerUser,
        connect_timeout: 60.0,
        request_timeout: 60.0,
        tls: TlsPlan::default(),
        http_version: HttpVersion::Auto,
        options: Map::new(),
        status_check: StatusCheck::Always,
    }
}

/// A task that asks for nothing.
pub fn task() -> TaskPlan {
    TaskPlan {
        name: None,
        user: None,
        weight: 1,
        run_if: None,
        skip_if: None,
        assertions: Vec::new(),
        extract: Vec::new(),
        think_time: None,
        status_check: None,
        throttle: None,
        retry: None,
        refused: None,
        fields: Map::new(),
    }
}
