//! One suite for an API server: what we take for granted of it (`contract`), and what the control service
//! makes of it (`scenarios`).
//!
//! Without further ado it runs against our double of one. With `AMBIT_KUBE_API` it runs, unchanged, against
//! the server that this names: that both pass is how we know that the double is no flattery. See
//! `docs/contract-suite.md`.

mod contract;
mod place;
mod scenarios;

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};

use place::Place;
use scenarios::mesh::Mesh;
use scenarios::role::Role;

/// Functions, by name, as trials.
macro_rules! trials {
    ($run:ident, $($($module:ident)::+,)*) => {
        vec![$(Trial::test(
            stringify!($($module)::+).replace([' ', '\n'], ""),
            || report($run(async |given| $($module)::+(given).await)),
        ),)*]
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if place::is_shared() {
        // What belongs to the cluster would get in the way of other trials.
        arguments.test_threads = Some(1);
    }
    libtest_mimic::run(&arguments, all()).exit_code()
}

fn all() -> Vec<Trial> {
    let contract = trials![
        in_a_place,
        contract::discovery::what_is_served_is_said,
        contract::discovery::a_kind_comes_and_goes_with_its_definition,
        contract::lists::pages_are_of_one_revision,
        contract::lists::selectors_select,
        contract::lists::revisions_that_cannot_be_are_refused,
        contract::lists::what_is_compacted_is_gone,
        contract::watches::changes_come_in_order,
        contract::watches::a_watch_resumes_after_the_list,
        contract::watches::a_bookmark_comes_before_the_end,
        contract::watches::a_revision_that_is_too_old_is_an_error_event,
        contract::watches::what_no_longer_matches_is_gone,
        contract::watches::a_watch_can_begin_with_what_there_is,
        contract::writes::a_name_is_taken_once,
        contract::writes::who_is_late_conflicts,
        contract::writes::nothing_new_is_not_written,
        contract::writes::the_server_keeps_its_own_fields,
        contract::writes::finalizers_hold_an_object,
        contract::writes::pods_wait_for_their_kubelet,
        contract::writes::a_dry_run_leaves_nothing,
        contract::status::each_endpoint_writes_its_part,
        contract::status::generation_counts_what_is_asked_for,
        contract::apply::each_manager_has_its_own_conditions,
        contract::apply::what_is_left_out_goes,
        contract::apply::who_is_taken_from_the_entries_owns_nothing,
        contract::apply::a_list_that_is_one_value_has_one_owner,
        contract::apply::applying_the_same_again_writes_nothing,
        contract::apply::applying_makes_what_is_missing,
        contract::leases::one_of_many_wins,
        contract::leases::one_of_many_makes_it,
        contract::tokens::a_token_names_its_pod_and_node,
        contract::tokens::a_token_is_for_its_audience,
        contract::tokens::a_token_ends_with_its_pod,
        contract::tokens::what_is_no_token_is_nobody,
        contract::tokens::a_role_is_all_that_an_account_may,
    ];
    let scenarios = trials![
        in_a_mesh,
        scenarios::pods::a_cold_start_with_many_pods,
        scenarios::pods::a_label_enrols_and_its_removal_ends_that,
        scenarios::pods::churn_ends_in_what_there_is,
        scenarios::faults::an_outage_takes_nothing_away,
        scenarios::faults::a_start_waits_for_the_server,
        scenarios::faults::what_is_forgotten_is_listed_again,
        scenarios::faults::a_busy_server_is_waited_for,
        scenarios::crds::a_kind_that_comes_later_counts_from_then,
        scenarios::crds::a_broken_object_costs_only_itself,
        scenarios::replicas::replicas_that_race_have_one_root,
        scenarios::replicas::a_writer_that_is_killed_is_followed_by_another,
        scenarios::replicas::a_writer_that_leaves_hands_over,
        scenarios::uninstalling::the_namespace_of_the_mesh_goes_with_everything,
        scenarios::uninstalling::the_definition_goes_while_control_ends,
        scenarios::waypoints::a_gateway_is_deployed_and_what_others_made_is_left_alone,
        scenarios::waypoints::what_its_gateway_owns_is_taken_over,
        scenarios::waypoints::what_a_config_map_asks_for_is_deployed,
        scenarios::waypoints::a_service_says_which_waypoint_it_is_bound_to,
        scenarios::agents::what_an_agent_says_of_itself_is_told_of_its_node,
        scenarios::permissions::the_shipped_role_is_used_whole,
    ];
    contract.into_iter().chain(scenarios).collect()
}

/// A failure with all its causes.
fn report(outcome: Result<()>) -> Result<(), Failed> {
    outcome.map_err(|error| format!("{error:#}").into())
}

/// Runs a trial in a place of its own and clears it, whatever comes of it.
fn in_a_place(trial: impl AsyncFnOnce(&Place) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let place = Place::make().await.context("there is no place for the trial")?;
        let outcome = trial(&place).await;
        let cleared = place.clear().await;
        outcome.and(cleared)
    })
}

/// The same for a trial that runs control.
fn in_a_mesh(trial: impl AsyncFnOnce(&Mesh<'_>) -> Result<()>) -> Result<()> {
    in_a_place(async |place| {
        let mesh = Mesh::make(place).await.context("there is no mesh for the trial")?;
        let outcome = trial(&mesh).await.and_then(|()| Role::was_enough(&mesh.gate.passed()));
        outcome.map_err(|error| anyhow!("{error:#}\n{}", mesh.logs()))
    })
}
