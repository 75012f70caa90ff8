//! Commands of the seed's README that this version does not have yet: named, so that the fault
//! says more than "unknown".

/// Their names.
pub(super) const LATER: &[&str] = &[
    "LD_execute_action",
    "LD_execute_files",
    "LD_add_package_to_executor",
    "LD_start_socket_server",
    "LD_generate_html",
    "LD_generate_json",
    "LD_generate_json_report",
    "LD_generate_xml",
    "LD_generate_xml_report",
    "LD_generate_junit_report",
    "LD_load_har",
    "LD_har_to_tasks",
    "LD_har_to_action_json",
    "LD_start_prometheus_exporter",
    "LD_stop_prometheus_exporter",
    "LD_start_influxdb_sink",
    "LD_stop_influxdb_sink",
    "LD_start_opentelemetry_exporter",
    "LD_stop_opentelemetry_exporter",
];
