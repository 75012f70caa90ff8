//! A bare closed loop over the HTTP users, without engine: what a request costs at least.
//!
//! `http_loop URL [USERS] [SECONDS]` prints requests, failures and CPU per request.
#![expect(clippy::print_stdout, reason = "the figure is what it is for")]

use ld_shared::boot::clock;
use ld_shared::scope::{Bindings, Scope};
use ld_worker::probe::Probe;
use ld_worker::protocol::{CoreContext, Want, driver};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let url = arguments.get(1).expect("the first argument is a URL");
    let number = |at: usize, default: u64| arguments.get(at).map_or(default, |text| text.parse().expect("a number"));
    let (users, seconds) = (number(2, 50), number(3, 5));
    let plan: ld_shared::plan::Plan = serde_json::from_value(json!({
        "seed": 0, "scenarios": [{
            "name": "s", "user": "fast_http_user", "load": {"closed": {"users": {"segments": [], "tail": 1.0}}}, "first_number": 0, "mode": "sequence",
            "tasks": [], "wait_time": null, "host": null, "connections": "per_user",
            "connect_timeout": 5.0, "request_timeout": 5.0,
            "tls": {"verify": false, "ca": null, "certificate": null, "key": null}, "status_check": "always"
        }],
        "variables": {}, "env": {}, "sources": [], "test_time": null, "warmup": 0, "graceful_stop": 0,
        "iterations": null, "records": {"keep": 0, "bodies": "none"}
    }))
    .expect("a plan");
    let scenario = &plan.scenarios[0];
    let bindings = Rc::new(Bindings::new(&plan, vec![]));
    let core = Rc::new(CoreContext {
        plan: Arc::new(plan.clone()),
        bindings: bindings.clone(),
        blobs: Arc::new(BTreeMap::new()),
        scratch: RefCell::new(vec![0; 64 * 1024]),
    });
    let users_of = (driver("fast_http_user").expect("a driver").new)(core, scenario).expect("usable settings");
    let task: ld_shared::plan::TaskPlan = serde_json::from_value(json!({
        "name": null, "user": null, "weight": 1, "run_if": null, "skip_if": null, "assertions": [], "extract": [],
        "think_time": null, "status_check": null, "fields": {"method": "get", "request_url": url}
    }))
    .expect("a task");
    let task = Rc::new(users_of.compile(&task).expect("a usable task"));
    let done = Rc::new(Cell::new((0_u64, 0_u64)));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).expect("a runtime");
    let end = clock::mono().after(std::time::Duration::from_secs(seconds));
    let before = cpu();
    runtime.block_on(async {
        let mut loops = Vec::new();
        for _ in 0..users {
            let (users_of, task, done, bindings) = (users_of.clone(), task.clone(), done.clone(), bindings.clone());
            loops.push(tokio::task::spawn_local(async move {
                let mut session = users_of.session();
                let mut scope = Scope::new(&bindings);
                while clock::mono() < end {
                    let mut probe = Probe::default();
                    let exchange = users_of.begin(&**task, &mut *session, &mut scope, &mut probe, Want::default());
                    let is_ok = match exchange {
                        Ok(exchange) => exchange.await.is_ok_and(|reply| reply.status == Some(200)),
                        Err(_) => false,
                    };
                    let (ok, failed) = done.get();
                    done.set(if is_ok { (ok + 1, failed) } else { (ok, failed + 1) });
                }
            }));
        }
        for one in loops {
            one.await.expect("no user panics");
        }
    });
    let (ok, failed) = done.get();
    println!(
        "{ok} requests, {failed} failures, {:.2} us CPU per request",
        (cpu() - before) * 1e6 / (ok + failed) as f64
    );
}

fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
