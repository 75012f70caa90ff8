//! The protocols that tasks may use: the one place that names the worker's table.

use crate::script::Fault;
use ld_shared::plan::ScenarioPlan;
use ld_worker::protocol::{Driver, PROTOCOLS, driver};
use serde_json::{Map, Value};

/// The protocol that a document names by this key.
pub(super) fn of(key: &str) -> Option<&'static Driver> {
    driver(key)
}

/// All keys that documents may use.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    PROTOCOLS.iter().flat_map(|driver| driver.keys.iter().copied())
}

/// Every fault of the options of protocols, pointers from `user_detail_dict`.
pub(super) fn option_faults(options: &Map<String, Value>) -> Vec<Fault> {
    PROTOCOLS.iter().flat_map(|driver| (driver.check_options)(options)).map(fault).collect()
}

/// Names of all options of protocols.
pub(super) fn options() -> impl Iterator<Item = &'static str> {
    PROTOCOLS.iter().flat_map(|driver| driver.options.iter().copied())
}

/// A fault of the worker's as documents show it.
pub(super) fn fault(fault: ld_worker::protocol::Fault) -> Fault {
    Fault { help: fault.help, ..Fault::new(fault.pointer, fault.message) }
}

/// Every fault of a task's fields, pointers from the task.
pub(super) fn faults(
    driver: &Driver,
    fields: &Map<String, Value>,
    scenario: &ScenarioPlan,
) -> Vec<ld_worker::protocol::Fault> {
    (driver.check)(fields, scenario)
}
