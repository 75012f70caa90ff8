//! Commands of the seed's README that this version does not have yet: named, so that the fault
//! says more than "unknown".

/// Their names.
pub(super) const LATER: &[&str] = &[
    "LD_start_socket_server",
    "LD_start_prometheus_exporter",
    "LD_stop_prometheus_exporter",
    "LD_start_influxdb_sink",
    "LD_stop_influxdb_sink",
    "LD_start_opentelemetry_exporter",
    "LD_stop_opentelemetry_exporter",
];
