//! Commands of the seed's newest release that this product does not have: named, so that the fault
//! says so instead of "unknown".

use super::Fault;

/// The fault of an action that names one of them.
pub(super) fn fault(pointer: &str, name: &str) -> Option<Fault> {
    let known = NAMES.contains(&name);
    let help = match name {
        _ if name.contains("k6") || name.contains("jmeter") => {
            "record the traffic as HAR and use LD_har_to_action_json, or leave the action out"
        }
        "LD_install_failure_budget" | "LD_uninstall_failure_budget" => {
            "use `thresholds` of LD_start_test: {\"rule\": \"failure_rate < 5%\", \"abort\": true}"
        }
        "LD_diff_runs" | "LD_trend_runs" | "LD_calibrate_sla" => "use `ld-master runs compare A B`",
        _ if name.starts_with("LD_format_action") => "an editor formats JSON by the schema of `ld-master schema`",
        "LD_start_dashboard" | "LD_stop_dashboard" => "use --web of ld-master",
        _ => "leave the action out",
    };
    let message = format!("`{name}` is a command of je_load_density that LoadDensity does not have");
    known.then(|| Fault::new(pointer, message).help(help))
}

const NAMES: &[&str] = &[
    "LD_format_action_document",
    "LD_format_action_file",
    "LD_format_action_string",
    "LD_append_audit_entry",
    "LD_apply_db_fixture",
    "LD_build_root_cause_prompt",
    "LD_build_user",
    "LD_build_user_pool",
    "LD_calibrate_sla",
    "LD_canary_verdict",
    "LD_cdp_capture_session",
    "LD_cdp_capture_to_har",
    "LD_cdp_discover_targets",
    "LD_chaos_apply_manifest",
    "LD_chaos_delete_manifest",
    "LD_chaos_network_delay",
    "LD_cluster_errors",
    "LD_craft_alg_confusion_token",
    "LD_craft_alg_none_token",
    "LD_craft_expired_token",
    "LD_craft_jwt_attack_pack",
    "LD_craft_kid_traversal_token",
    "LD_diff_runs",
    "LD_emit_github_annotations",
    "LD_expand_task_fuzz",
    "LD_find_breaking_point",
    "LD_find_metadata_leak",
    "LD_generate_allure_report",
    "LD_generate_chart_report",
    "LD_generate_cost_report",
    "LD_generate_cyclonedx_report",
    "LD_generate_excel_report",
    "LD_generate_histogram_report",
    "LD_generate_pdf_report",
    "LD_generate_sarif_report",
    "LD_generate_service_map",
    "LD_graphql_alias_batching",
    "LD_graphql_attack_pack",
    "LD_graphql_depth_attack",
    "LD_graphql_introspection_payload",
    "LD_index_catalog",
    "LD_install_failure_budget",
    "LD_install_network_conditioner",
    "LD_issue_share_link",
    "LD_jmeter_to_action_json",
    "LD_jmeter_to_tasks",
    "LD_k6_script_to_action_json",
    "LD_k6_script_to_tasks",
    "LD_list_tags",
    "LD_load_jmeter_jmx",
    "LD_load_k6_script",
    "LD_mutate_json",
    "LD_mutate_string",
    "LD_pii_scrub",
    "LD_pii_scrub_string",
    "LD_post_gitlab_mr_summary",
    "LD_post_opsgenie_alert",
    "LD_post_pagerduty_event",
    "LD_post_slack_summary",
    "LD_post_teams_summary",
    "LD_probe_rate_limit",
    "LD_read_action_toml",
    "LD_read_action_yaml",
    "LD_read_audit_log",
    "LD_register_db_source",
    "LD_register_db_sources",
    "LD_render_prompt_text",
    "LD_render_ssrf_tasks",
    "LD_run_db_teardown",
    "LD_run_owasp_checks",
    "LD_search_catalog",
    "LD_search_runs_by_tag",
    "LD_smuggling_attack_pack",
    "LD_smuggling_cl_te",
    "LD_smuggling_te_cl",
    "LD_smuggling_te_te",
    "LD_ssrf_targets",
    "LD_start_dashboard",
    "LD_start_datadog_apm_exporter",
    "LD_start_opentelemetry_tracing_exporter",
    "LD_start_stub_server",
    "LD_stop_dashboard",
    "LD_stop_datadog_apm_exporter",
    "LD_stop_opentelemetry_tracing_exporter",
    "LD_stop_stub_server",
    "LD_tag_run",
    "LD_toxiproxy_add_toxic",
    "LD_toxiproxy_create_proxy",
    "LD_toxiproxy_install_bandwidth",
    "LD_toxiproxy_install_latency",
    "LD_toxiproxy_list_proxies",
    "LD_toxiproxy_remove_proxies",
    "LD_toxiproxy_remove_toxic",
    "LD_toxiproxy_reset_all",
    "LD_trend_runs",
    "LD_uninstall_failure_budget",
    "LD_uninstall_network_conditioner",
    "LD_verify_share_link",
    "LD_write_action_toml",
    "LD_write_action_yaml",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_commands_are_none_of_ours() {
        for entry in crate::command::commands() {
            assert!(!NAMES.contains(&entry.spec.name), "{}", entry.spec.name);
        }
        let fault = fault("/0/0", "LD_load_k6_script").unwrap();
        assert!(fault.to_string().contains("is a command of je_load_density that LoadDensity does not have at /0/0"));
        assert_eq!(super::fault("", "LD_start_test"), None);
    }
}
