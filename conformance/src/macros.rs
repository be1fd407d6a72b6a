//! The lists of checks, and the macros that make a test of each.

/// The checks of a runtime: module, name, and the behavior in the contract. Passes them to the
/// macro `$then`, after `$context` in braces.
#[doc(hidden)]
#[macro_export]
macro_rules! __runtime_checks {
    ([$($then:tt)+] $($context:tt)*) => {
        $($then)+! {
            {$($context)*}
            identity::the_host_image_is_constant: HOST_IMAGE,
            identity::capabilities_are_constant: CAPABILITIES,
            objects::an_argument_can_be_the_outcome: JOB,
            objects::a_guest_sees_its_job: JOB,
            objects::stored_objects_are_found: STORED,
            objects::names_are_listed_in_order: TREE,
            objects::a_blob_has_a_size_and_ranges: RANGE,
            objects::a_nested_run_gets_its_image_and_arguments: NESTED_RUN,
            objects::run_many_keeps_the_order: RUN_MANY,
            outcomes::a_repeated_job_has_the_same_outcome: PURE,
            outcomes::another_instance_has_the_same_outcome: SAME_HOST_IMAGE,
            outcomes::concurrent_jobs_have_the_same_outcome: PURE,
            outcomes::limits_do_not_change_an_outcome: LIMITS_CHANGE_NOTHING,
            outcomes::nothing_is_left_for_the_next_job: PURE,
            nesting::many_jobs_wait_at_once: WAITING,
            nesting::a_guest_calls_itself_to_any_depth: WAITING,
            nesting::a_guest_runs_many_through_a_dispatcher: RUN_MANY,
            cancellation::dropping_the_future_stops_a_computing_guest: DROPPING,
            cancellation::dropping_the_future_stops_a_waiting_guest: DROPPING,
            failures::a_guest_fails_with_its_own_words: GUEST_FAILED,
            failures::a_crash_is_an_error: HOSTILE,
            failures::no_outcome_is_an_error: HOSTILE,
            failures::missing_arguments_are_errors: HOSTILE,
            failures::errors_of_the_host_reach_the_guest: HOST_ERRORS,
            failures::errors_of_the_host_remain_as_causes: HOST_ERRORS,
            failures::a_computing_guest_does_not_block_others: HOSTILE,
            failures::an_instance_survives_hostile_guests: HOSTILE,
            modules::a_prepared_module_runs: PREPARE,
            modules::an_unloadable_module_is_an_error: BAD_MODULE,
            modules::a_missing_module_is_an_error: MODULE_ERROR,
            modules::a_module_over_its_limit_is_an_error: LIMITS,
            modules::unsupported_code_is_an_error: SUPPORT,
            limits::computing_time_is_limited: LIMITS,
            limits::waiting_does_not_count_as_computing: COMPUTE_TIME,
            limits::memory_is_limited: LIMITS,
            limits::a_breach_of_computing_time_cannot_be_caught: LIMITS,
            limits::a_breach_of_memory_cannot_be_caught: LIMITS,
            limits::requests_are_limited: LIMITS,
            limits::responses_are_limited: LIMITS,
            limits::fuel_is_limited: FUEL,
            meters::jobs_share_a_budget_of_fuel: METER,
            meters::jobs_share_a_budget_of_memory: METER,
            meters::memory_is_given_back: RESERVATION,
            logs::messages_reach_the_host: LOG,
            logs::the_log_is_limited: LOG_LIMIT,
        }
    };
}

/// The checks of a store, in the form of [`__runtime_checks`].
#[doc(hidden)]
#[macro_export]
macro_rules! __store_checks {
    ([$($then:tt)+] $($context:tt)*) => {
        $($then)+! {
            {$($context)*}
            objects::written_objects_are_read: WRITTEN,
            objects::written_objects_have_ranges: STORE_RANGE,
            objects::large_objects_are_read: WRITTEN,
            objects::an_object_is_written_twice: WRITTEN_TWICE,
            objects::unknown_ids_are_not_found: UNKNOWN,
            objects::threads_write_and_read_at_once: ANY_THREAD,
            memo::entries_are_recorded_and_replaced: RECORD,
            memo::unknown_requests_have_no_entry: LOOK_UP,
            memo::runs_are_recorded: RUN,
            pins::pins_are_set_and_replaced: PIN,
            pins::pins_are_removed: UNPIN,
            pins::pins_are_listed: PINS,
            pins::pins_and_entries_are_independent: PINNED,
            durability::flushed_data_is_kept: FLUSH,
            durability::an_entry_comes_after_its_objects: OBJECTS_FIRST,
            durability::a_pin_comes_after_its_objects: OBJECTS_FIRST,
            durability::what_a_pin_reaches_survives_a_collection: PIN_REACHES,
            durability::a_store_that_keeps_everything_does: KEEPS_EVERYTHING,
        }
    };
}

/// The checks of a source, in the form of [`__runtime_checks`].
#[doc(hidden)]
#[macro_export]
macro_rules! __source_checks {
    ([$($then:tt)+] $($context:tt)*) => {
        $($then)+! {
            {$($context)*}
            checks::supplied_objects_have_their_ids: SOURCE_ID,
            checks::kinds_are_those_of_the_objects: SOURCE_KIND,
            checks::sizes_are_those_of_the_objects: SOURCE_SIZE,
            checks::ranges_are_parts_of_the_objects: SOURCE_RANGE,
            checks::objects_that_a_source_lacks_are_not_found: UNKNOWN,
            checks::objects_of_other_kinds_are_errors: OTHER_KIND,
            checks::threads_read_at_once: ANY_THREAD,
        }
    };
}

/// Generates one `#[test]` for each check of [`runtime_checks`](crate::runtime_checks), with the
/// check's name.
///
/// The argument is an expression whose value implements [`RuntimeFixture`](crate::RuntimeFixture).
/// Each test evaluates it again, and runs its check as
/// [`Check::run_blocking`](crate::Check::run_blocking) does. A skipped check writes its reason to
/// standard error.
#[macro_export]
macro_rules! runtime_tests {
    ($fixture:expr $(,)?) => {
        $crate::__runtime_checks!([$crate::__tests] $crate::runtime_checks, $fixture);
    };
}

/// Generates one `#[test]` for each check of [`store_checks`](crate::store_checks), as
/// [`runtime_tests!`](crate::runtime_tests) does. The argument implements
/// [`StoreFixture`](crate::StoreFixture).
#[macro_export]
macro_rules! store_tests {
    ($fixture:expr $(,)?) => {
        $crate::__store_checks!([$crate::__tests] $crate::store_checks, $fixture);
    };
}

/// Generates one `#[test]` for each check of [`source_checks`](crate::source_checks), as
/// [`runtime_tests!`](crate::runtime_tests) does. The argument implements
/// [`SourceFixture`](crate::SourceFixture).
#[macro_export]
macro_rules! source_tests {
    ($fixture:expr $(,)?) => {
        $crate::__source_checks!([$crate::__tests] $crate::source_checks, $fixture);
    };
}

/// Generates a test for each check in a list.
#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    ({$checks:path, $fixture:expr} $($module:ident::$name:ident: $behavior:ident,)*) => {
        $(
            #[test]
            fn $name() {
                $crate::test(&$checks(), stringify!($name), ::std::sync::Arc::new($fixture));
            }
        )*
    };
}
