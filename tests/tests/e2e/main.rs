//! Scenarios of a whole mesh: real programs and applications in network namespaces.
//!
//! Each runs in a sandbox of its own (`ambit_tests::sandbox`), by this program calling itself.
//! Without root they fail: what is skipped would look as if it had passed.

mod capture;
mod cni;
mod conformance;
mod costs;
mod encryption;
mod ending;
mod entries;
mod exclusions;
mod faults;
mod identity;
mod interoperation;
mod plumbing;
mod pods;
mod policy;
mod probes;
mod rollout;
mod routing;
mod scope;
mod transfer;
mod upgrade;
mod waypoint;

use std::env;
use std::io::{self, Write};
use std::panic;
use std::process::{ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ambit_tests::{log, sandbox};
use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};

/// First argument of the program when it runs inside its sandbox; the scenario's name follows.
const INSIDE: &str = "--inside-sandbox";

/// In place of a scenario's name: a mesh that stands until it is killed.
const STAND: &str = "stand";

/// No scenario takes half as long on two busy cores.
const LIMIT: Duration = Duration::from_secs(300);

/// Lines of each log that the report of a failure shows.
const TAIL: usize = 60;

struct Scenario {
    name: &'static str,
    run: fn() -> Result<()>,
}

macro_rules! scenarios {
    ($($module:ident :: $function:ident,)*) => {
        &[$(Scenario {
            name: concat!(stringify!($module), "::", stringify!($function)),
            run: $module::$function,
        },)*]
    };
}

const SCENARIOS: &[Scenario] = scenarios![
    plumbing::without_a_mesh_everything_is_visible,
    identity::three_rotations_lose_nothing,
    identity::a_change_of_root_interrupts_nothing,
    identity::a_root_is_replaced_by_files_while_control_runs,
    identity::a_certificate_says_who_the_pod_is_and_nothing_else,
    identity::a_node_gets_no_identity_of_another_node,
    identity::only_tls_1_3_is_spoken,
    encryption::nothing_readable_passes_between_nodes,
    encryption::strangers_are_refused_before_any_connect,
    transfer::a_gibibyte_each_way_arrives_whole,
    transfer::either_end_may_finish_first,
    transfer::a_reset_never_looks_like_an_end,
    transfer::many_connections_leak_nothing,
    costs::a_request_on_an_open_connection_wakes_no_other_thread,
    costs::a_connection_costs_what_it_did,
    costs::bulk_leaves_in_whole_packets,
    interoperation::envoy_reaches_our_pods,
    interoperation::our_pods_reach_envoy,
    policy::an_edit_reaches_new_and_open_connections_within_a_second,
    policy::the_log_of_a_denial_names_policy_and_rule,
    policy::ports_and_namespaces_are_told_apart,
    policy::strict_refuses_who_comes_in_clear,
    pods::a_pod_is_found_by_its_processes,
    pods::forgeries_gain_nothing,
    pods::a_pod_with_a_new_uid_is_another_pod,
    pods::uninstalling_finds_what_no_path_leads_to,
    probes::a_strict_pod_is_probed_by_its_kubelet_and_by_nobody_else,
    probes::an_address_of_the_node_does_not_make_a_probe,
    exclusions::what_is_excluded_is_left_alone_and_changes_under_open_connections,
    capture::entering_and_leaving_the_mesh_keeps_open_connections,
    capture::without_its_agent_a_pod_is_closed,
    capture::a_pod_is_closed_before_its_first_agent,
    capture::an_agent_that_knows_nothing_keeps_a_pod_closed,
    capture::uninstalling_leaves_pods_as_they_were,
    capture::a_mark_does_not_open_the_way,
    capture::every_address_family_is_carried,
    capture::the_iptables_backend_carries_every_family,
    capture::the_iptables_backend_closes_too,
    cni::a_pod_is_captured_before_it_starts,
    cni::without_its_agent_a_node_starts_what_is_not_of_the_mesh,
    cni::a_node_that_reboots_comes_up_by_itself,
    cni::another_pods_arguments_gain_nothing,
    cni::the_chain_is_repaired_and_restored,
    routing::a_service_spreads_over_its_ready_pods,
    routing::a_failed_connect_is_tried_on_another_endpoint,
    routing::a_lost_node_is_left_for_another_endpoint_before_anybody_knows,
    routing::a_pod_reaches_itself_through_its_service,
    routing::plain_neighbours_are_reached_in_clear_and_see_the_client,
    routing::an_unknown_address_of_the_mesh_is_refused,
    routing::both_ends_are_named_in_logs_and_metrics,
    faults::control_may_be_away,
    faults::controls_return_interrupts_nothing,
    faults::an_agent_restarts_while_control_is_away,
    faults::a_file_that_is_written_slowly_is_read_when_it_is_whole,
    faults::broken_documents_cost_only_themselves,
    faults::a_drained_agent_lets_connections_finish,
    upgrade::rolling_the_agents_under_load_loses_nothing,
    upgrade::a_successor_that_never_serves_changes_nothing,
    upgrade::a_successor_that_dies_leaves_pods_closed_until_it_is_back,
    upgrade::who_was_replaced_does_not_take_the_node_back,
    upgrade::only_root_is_given_the_pods,
    upgrade::an_agent_of_another_protocol_is_served_beside,
    upgrade::a_crashed_agent_is_replaced_within_seconds,
    upgrade::pods_that_are_found_by_their_uid_change_hands_and_outlive_a_crash,
    entries::a_host_outside_has_routes_and_policies_of_its_own,
    scope::a_waypoint_is_sent_what_its_services_need,
    scope::a_service_changes_its_waypoint_and_no_request_gets_around_its_policy,
    waypoint::a_canary_is_shifted_without_an_error,
    waypoint::a_path_is_refused_for_one_identity_and_the_log_says_why,
    waypoint::without_its_waypoint_a_service_is_refused,
    waypoint::a_service_may_be_reached_without_a_waypoint_that_is_away,
    waypoint::a_waypoint_restarts_while_control_is_away,
    waypoint::a_lost_node_is_left_by_the_waypoint_and_used_again_when_it_is_back,
    waypoint::a_destination_may_take_nothing_around_its_waypoint,
    waypoint::a_policy_of_the_workload_that_names_the_client_holds_behind_a_waypoint,
    waypoint::rolling_the_waypoint_under_load_loses_nothing,
    waypoint::a_replaced_agent_is_left_while_requests_go_on,
    conformance::services_and_their_ports_have_routes_of_their_own,
    conformance::requests_are_matched,
    conformance::requests_and_answers_are_changed,
    conformance::requests_are_redirected,
    conformance::backends_of_every_sort_and_none,
    conformance::weights_that_are_edited_under_load_lose_nothing,
    conformance::a_teams_istio_objects_work_unchanged,
    conformance::virtual_services_do_what_they_say,
    conformance::connections_have_routes_too,
    rollout::rolling_two_replicas_loses_nothing_of_any_protocol,
    rollout::scaling_to_four_and_back_loses_nothing_of_any_protocol,
    rollout::deleting_a_replica_loses_nothing_of_any_protocol,
    rollout::streams_finish_while_their_waypoint_drains,
    ending::an_agent_that_is_told_to_end_leaves_pods_closed,
    ending::an_agent_of_an_uninstalled_mesh_opens_its_pods_and_leaves_nothing,
    ending::a_second_signal_ends_the_asking,
    ending::a_successor_may_come_while_the_agent_asks,
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [first, name] = arguments.as_slice()
        && first == INSIDE
    {
        return inside(name);
    }
    if let [first, path] = arguments.as_slice()
        && first == upgrade::VISIT
    {
        let written = io::stdout().write_all(upgrade::visit(path).as_bytes());
        return if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Err(error) = sandbox::die_with_parent() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let mut trials: Vec<Trial> =
        SCENARIOS.iter().map(|scenario| Trial::test(scenario.name, || outside(scenario.name))).collect();
    trials.push(Trial::test("plumbing::a_killed_runner_leaves_nothing_behind", || {
        Ok(plumbing::a_killed_runner_leaves_nothing_behind([INSIDE, STAND])?)
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Runs a scenario in a sandbox and shows what it printed if it fails.
fn outside(name: &str) -> Result<(), Failed> {
    let output = sandbox::command([INSIDE, name])?.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}\n{printed}", output.status).into())
}

/// Runs a scenario in the sandbox that this process is the first of.
fn inside(name: &str) -> ExitCode {
    let result = sandbox::furnish().and_then(|sandbox| {
        if name == STAND {
            return plumbing::stand(sandbox);
        }
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
        run_within_limit(scenario.with_context(|| format!("there is no scenario {name}"))?.run)
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}\n{error:#}", log::tails(TAIL));
            ExitCode::FAILURE
        }
    }
}

fn run_within_limit(run: fn() -> Result<()>) -> Result<()> {
    let (done, outcome) = mpsc::channel();
    thread::spawn(move || {
        // Nobody waits for it any more when the limit is over.
        let _ = done.send(panic::catch_unwind(run));
    });
    match outcome.recv_timeout(LIMIT) {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(anyhow!("the scenario panicked, see above")),
        Err(_) => Err(anyhow!("the scenario did not end within {LIMIT:?}")),
    }
}
