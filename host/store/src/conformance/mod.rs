//! What every implementation of [`Store`] must do, as checks that run against the trait alone.
//!
//! A check gets an empty store and panics with what is wrong. [`CHECKS`] is all of them; [`differential`] holds a
//! store against another (the model) for as many random operations as it takes. Absent on purpose: durability, which
//! takes processes that are killed, and what only one implementation has.

mod cancelling;
mod commands;
pub mod differential;
mod ending;
mod ends;
mod execution;
mod fixture;
mod gathering;
mod ingestion;
mod invoking;
mod limiting;
mod pausing;
mod random;
mod reruns;
mod scheduling;
mod sending;
mod signalling;
mod slotting;
mod swapping;
mod throttling;
mod ticking;
mod upkeep;
mod versions;
mod waiting;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::contract::Store;

/// What a check runs.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A check: its name and what it does to an empty store.
pub struct Check {
    /// Its name, as a test's.
    pub name: &'static str,
    /// Runs it. Panics when the store does not conform.
    pub run: fn(Arc<dyn Store>) -> Running,
}

macro_rules! checks {
    ($($room:ident :: $check:ident),* $(,)?) => {
        /// All checks.
        pub const CHECKS: &[Check] = &[
            $(Check { name: stringify!($check), run: |store| Box::pin($room::$check(store)) }),*
        ];
    };
}

checks![
    ingestion::events_and_runs_come_together,
    ingestion::an_event_that_is_sent_again_stays_as_it_was,
    ingestion::a_stale_registry_stores_nothing,
    ingestion::the_same_event_id_starts_a_function_once_a_day,
    ingestion::a_delayed_run_waits_for_its_time,
    ingestion::a_run_is_born_leased_only_to_a_node_that_lives,
    ingestion::what_does_not_make_sense_stores_nothing,
    ingestion::large_payloads_come_back_whole,
    limiting::what_is_over_the_rate_is_dropped_and_why_is_kept,
    limiting::within_one_commit_limits_count_too,
    limiting::the_same_value_starts_a_function_once_a_day,
    limiting::what_is_dropped_counts_towards_nothing,
    limiting::a_thousand_keys_come_and_go,
    throttling::runs_begin_one_after_the_other,
    throttling::what_is_meant_for_later_takes_its_turn_then,
    throttling::those_that_were_held_up_together_do_not_begin_together,
    throttling::a_run_that_leaves_the_line_leaves_its_turn_to_the_others,
    throttling::many_that_are_cancelled_hold_up_nobody,
    throttling::a_paused_run_leaves_the_line_and_takes_another_turn,
    throttling::a_paused_function_that_is_resumed_keeps_to_its_throttle,
    throttling::what_waits_to_begin_goes_by_priority,
    slotting::no_more_execute_than_the_limit,
    slotting::each_key_has_slots_of_its_own,
    slotting::functions_share_slots_by_a_global_key,
    slotting::a_run_needs_all_its_slots_and_holds_none_before,
    slotting::who_waits_for_a_slot_can_be_cancelled_and_paused,
    slotting::what_comes_for_a_run_that_waits_for_a_slot_is_kept,
    slotting::slots_of_a_node_that_ended_come_free,
    slotting::a_new_version_says_how_many,
    slotting::who_waits_for_a_slot_goes_by_priority,
    slotting::a_line_leaves_what_a_node_has_not_loaded_to_others,
    slotting::a_long_line_moves_on_bit_by_bit,
    gathering::a_debounce_starts_with_the_last_event,
    gathering::events_of_one_commit_share_a_window,
    gathering::an_event_that_comes_twice_puts_nothing_off,
    gathering::a_batch_starts_when_it_is_full_or_when_its_time_is_over,
    gathering::a_batch_has_no_more_bytes_than_its_limit,
    gathering::what_ends_or_begins_a_window_s_run_closes_it,
    gathering::a_paused_function_s_windows_go_on_and_their_runs_are_held,
    gathering::a_window_s_run_takes_its_turn_in_a_throttle,
    gathering::a_window_s_run_is_of_the_version_that_its_last_event_met,
    gathering::a_rerun_has_the_events_of_the_run,
    execution::entries_are_kept_in_order,
    execution::only_the_lease_holder_appends,
    execution::the_same_entries_again_are_taken_once,
    execution::a_run_suspends_and_its_timer_wakes_it,
    execution::a_completion_that_is_there_keeps_a_run_from_waiting,
    execution::a_delivered_completion_is_gone,
    execution::runs_complete_and_fail,
    execution::continue_with_begins_anew,
    execution::a_blocked_run_says_why,
    execution::many_appends_at_once_are_all_kept,
    execution::logs_are_kept_by_number,
    sending::what_a_run_sends_comes_with_its_entry,
    sending::sent_again_with_the_same_entries_nothing_is_stored_twice,
    sending::what_is_sent_without_a_lease_or_on_a_stale_registry_stores_nothing,
    invoking::a_childs_end_completes_the_step_that_waits_for_it,
    invoking::who_is_given_up_is_cancelled_unless_abandoned,
    invoking::a_wait_for_nothing_has_its_failure_at_once,
    invoking::who_is_cancelled_with_many_is_told_of_and_given_up_alike,
    signalling::a_signal_ends_the_one_wait_for_it,
    signalling::what_a_run_signals_comes_with_its_entry,
    signalling::a_second_waiter_fails_or_replaces_the_first,
    waiting::an_event_ends_the_waits_that_it_fits,
    waiting::a_wait_ends_once_and_with_its_operation_or_its_run,
    waiting::a_wait_that_looks_back_finds_the_latest,
    waiting::events_and_waits_at_once_never_miss_each_other,
    scheduling::claims_go_to_the_oldest,
    scheduling::a_node_claims_only_what_it_has_loaded,
    scheduling::timers_fire_in_order_and_within_limits,
    scheduling::upcoming_timers_are_the_soonest,
    scheduling::a_crash_loop_is_blocked,
    scheduling::handing_a_run_back_is_no_crash,
    scheduling::runs_of_nodes_that_left_are_taken_over,
    scheduling::a_node_that_left_gets_nothing,
    scheduling::a_node_is_told_how_it_stands,
    scheduling::a_draining_node_is_told_so,
    scheduling::a_glance_sees_what_others_change,
    scheduling::runs_in_flight_are_examined_without_a_lease,
    commands::cancel_is_final,
    commands::wake_completes_an_open_operation_once,
    commands::wake_of_what_is_not_open_is_refused,
    commands::wake_begins_a_delayed_run_now,
    commands::unblock_is_for_one_module,
    commands::what_another_release_could_not_read_is_tried_again,
    pausing::a_run_is_paused_and_resumed,
    pausing::an_executing_run_is_paused_with_its_next_entry,
    pausing::what_comes_while_a_run_is_paused_is_kept,
    pausing::a_pause_can_be_taken_back_and_outlives_the_node,
    pausing::a_delayed_run_that_is_resumed_keeps_its_time,
    pausing::a_paused_function_holds_its_new_runs,
    reruns::a_run_begins_with_what_another_recorded,
    reruns::what_is_not_there_cannot_be_taken_over,
    cancelling::many_runs_are_cancelled_in_batches_once_each,
    cancelling::a_cancellation_is_about_runs_from_before_it_within_its_bounds,
    cancelling::a_deleted_cancellation_cancels_nothing_more,
    ticking::schedules_follow_the_registry_and_keep_their_places,
    ticking::a_tick_is_one_commit_and_happens_once,
    ticking::a_tick_that_is_left_out_says_why,
    ticking::of_many_ticks_at_once_one_wins,
    ticking::a_tick_is_decided_on_what_is_active,
    ending::an_event_cancels_the_runs_that_it_fits,
    ending::whatever_a_run_does_an_event_cancels_it,
    ending::an_event_from_before_a_run_does_not_cancel_it,
    ending::what_may_end_a_run_stays_when_it_begins_anew,
    ending::who_waits_for_a_run_is_told_that_an_event_has_cancelled_it,
    ending::runs_that_take_too_long_are_cancelled,
    ending::the_time_to_end_is_counted_from_the_beginning,
    ends::an_end_is_left_for_who_listens_when_it_ends,
    ends::an_end_is_told_once,
    ends::who_waits_for_an_end_listens,
    swapping::the_first_entry_of_another_version_takes_the_run_over,
    swapping::a_run_may_go_over_with_its_wait_or_its_end,
    swapping::who_cannot_go_over_stays_and_says_why,
    swapping::a_swap_is_decided_on_what_is_active_and_under_the_lease,
    swapping::an_activation_says_what_becomes_of_runs_in_flight,
    swapping::swaps_are_deleted_with_their_run,
    swapping::a_person_says_which_version_a_run_is_on,
    swapping::a_run_begins_again_on_another_version,
    versions::activation_is_one_step,
    versions::a_version_in_use_is_kept,
    versions::a_deleted_version_can_come_back,
    versions::components_are_kept_by_digest,
    versions::the_same_configuration_has_one_revision,
    upkeep::lists_are_newest_first_and_narrow,
    upkeep::counts_are_of_what_lives,
    upkeep::pruning_takes_all_that_belongs_to_a_run,
    upkeep::a_closed_store_says_so,
];
