//! Implementations with a flaw: for each check one that the check must find.

mod test_storage;
mod toy_runtime;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use manifold_conformance::{
    Check, RuntimeFixture, SourceFixture, StoreFixture, runtime_checks, source_checks, store_checks,
};
use test_storage::{SourceFlaw, StoreFlaw, TestSource, TestStores};
use toy_runtime::{Flaw, ToyFixture};

/// Ensures that the check `name` finds the flaw, with a violation that contains `words`.
fn is_found<F>(checks: &[Check<F>], name: &str, fixture: Arc<F>, flaw: impl Debug, words: &str)
where
    F: ?Sized + Send + Sync + 'static,
{
    let check = checks.iter().find(|check| check.name() == name).unwrap();
    let violation = match check.run_blocking(fixture) {
        Err(violation) => violation.to_string(),
        Ok(verdict) => panic!("{name} does not find {flaw:?}: {verdict:?}"),
    };
    assert!(violation.contains(words), "{name} finds something else than {flaw:?}: {violation}");
}

/// Generates a test for each mutant, and a list of the checks that have one.
macro_rules! mutants {
    ($checks:ident, $fixture:ident as $dyn:ident, $flaws:ident:
     $($name:ident: $flaw:ident, $words:literal;)*) => {
        $(
            #[test]
            #[allow(non_snake_case, reason = "the names of flaws tell the tests of a check apart")]
            fn $name() {
                let fixture: Arc<dyn $dyn> = Arc::new($fixture::with_flaw($flaws::$flaw));
                let check = stringify!($name);
                is_found(&$checks(), check, fixture, $flaws::$flaw, $words);
            }
        )*

        #[test]
        fn every_check_has_a_mutant() {
            let checks: BTreeSet<_> = $checks().iter().map(Check::name).collect();
            assert_eq!(checks, BTreeSet::from([$(stringify!($name)),*]));
        }
    };
}

mod runtimes {
    use super::*;

    mutants! { runtime_checks, ToyFixture as RuntimeFixture, Flaw:
        the_host_image_is_constant: HostImageOfEachInstance, "hash of a second instance";
        capabilities_are_constant: CapabilitiesAfterAJob, "capabilities after a job";
        an_argument_can_be_the_outcome: OutcomeIsABlob, "the kind of its object, tree";
        a_guest_sees_its_job: SaltIsHidden, "the outcome of Program::Describe";
        stored_objects_are_found: StoresPartOfABlob, "twice in a row, 512 bytes";
        names_are_listed_in_order: ReversedTree, "the outcome of Program::List to be";
        a_blob_has_a_size_and_ranges: RangeIsTooLong, "the outcome of Program::Part";
        a_nested_run_gets_its_image_and_arguments: TrimsImageReferences,
            "Program::Relay to succeed";
        run_many_keeps_the_order: ReversedResults, "under the name of the entry";
        a_repeated_job_has_the_same_outcome: Clock, "the same outcome each time";
        another_instance_has_the_same_outcome: InstanceNumber, "outcome on a second instance";
        concurrent_jobs_have_the_same_outcome: NeighborsAreVisible, "outcome beside other jobs";
        limits_do_not_change_an_outcome: LimitsAreVisible, "outcome under tighter limits";
        nothing_is_left_for_the_next_job: SharedGlobal, "the outcome of Program::Remember";
        many_jobs_wait_at_once: EightSlots, "found 8 jobs";
        a_guest_calls_itself_to_any_depth: EightSlots, "to end within 4s; found it still runs";
        a_guest_runs_many_through_a_dispatcher: TenResults,
            "Program::FanOut of Program::Echo to be";
        dropping_the_future_stops_a_computing_guest: DetachedWhileComputing,
            "a computing guest to release its host";
        dropping_the_future_stops_a_waiting_guest: DetachedWhileWaiting,
            "a waiting guest to release its host";
        a_guest_fails_with_its_own_words: NoMessage, "a message that contains";
        a_crash_is_an_error: PanicsEscape, "not to panic";
        no_outcome_is_an_error: SilenceIsARuntimeFailure, "of the kind ErrorKind::Guest";
        missing_arguments_are_errors: MissingArgumentsPanic, "not to panic";
        errors_of_the_host_reach_the_guest: ErrorsEndTheJob,
            "Program::Catch of a run that fails to succeed";
        errors_of_the_host_remain_as_causes: NoCauses, "in the chain of causes";
        a_computing_guest_does_not_block_others: NeverYields, "the thread was blocked";
        an_instance_survives_hostile_guests: BrokenByABreach, "Program::Echo after Program::Spin";
        a_prepared_module_runs: PreparingStores, "a host that only reads objects";
        an_unloadable_module_is_an_error: WaitsForABadModule, "the job to end within";
        a_missing_module_is_an_error: RemembersMissingModules,
            "Program::Echo after its module was stored";
        a_module_over_its_limit_is_an_error: UnlimitedModules, "a module over its limit to fail";
        unsupported_code_is_an_error: RunsContainers, "code that the runtime does not support";
        computing_time_is_limited: UnlimitedComputing, "the job to end within";
        waiting_does_not_count_as_computing: WaitingCounts, "a run that takes long to succeed";
        memory_is_limited: MemoryIsATrap, "to end with Reason::LimitBreached";
        a_breach_of_computing_time_cannot_be_caught: BreachesAreCaught,
            "on its computing time to fail";
        a_breach_of_memory_cannot_be_caught: BreachesAreCaught, "on its memory to fail";
        requests_are_limited: UnlimitedRequests, "Program::Flood of 1048576 bytes to fail";
        responses_are_limited: UnlimitedResponses, "Program::Measure of 1048576 bytes to fail";
        fuel_is_limited: UnlimitedFuel, "the job to end within";
        jobs_share_a_budget_of_fuel: FuelIsNotCharged, "the job to end within";
        jobs_share_a_budget_of_memory: MemoryIsNotCharged, "found 0 breached it, and 16 succeeded";
        memory_is_given_back: MemoryIsNotGivenBack, "to be given back";
        messages_reach_the_host: NoLog, "the log to contain";
        the_log_is_limited: UnlimitedLog, "found 5000 bytes";
    }
}

mod stores {
    use super::*;

    mutants! { store_checks, TestStores as StoreFixture, StoreFlaw:
        written_objects_are_read: LosesEmptyBlobs, "of 0 bytes; found None";
        written_objects_have_ranges: RangesBeyondTheEndFail, "`read_range` of 0..1 of";
        large_objects_are_read: ReadsPartOfLargeObjects, "of 1048577 bytes; found";
        an_object_is_written_twice: SecondWriteRemoves, "found None";
        unknown_ids_are_not_found: FindsSimilarIds, "differs in one bit to return None";
        threads_write_and_read_at_once: LosesConcurrentWrites, "an object that a thread wrote";
        entries_are_recorded_and_replaced: KeepsTheFirstEntry, "an entry that was replaced";
        unknown_requests_have_no_entry: ObjectsAreEntries, "that is only an object to be None";
        runs_are_recorded: KeepsTheFirstRun, "the record of a second run";
        pins_are_set_and_replaced: KeepsTheFirstPin, "a pin that was replaced";
        pins_are_removed: UnpinIsAlwaysTrue, "`unpin` in an empty store";
        pins_are_listed: ListsOnePinLess, "the number of listed pins";
        pins_and_entries_are_independent: PinsAreEntries, "that is only pinned to be None";
        flushed_data_is_kept: PinsAreNotDurable, "a pin after `flush` and a restart";
        an_entry_comes_after_its_objects: OnlyTheMemoIsDurable, "a memo entry after a restart";
        a_pin_comes_after_its_objects: OnlyPinsAreDurable, "a pin after a restart";
        what_a_pin_reaches_survives_a_collection: CollectsBelowPins, "found None";
        a_store_that_keeps_everything_does: ClaimsToKeepEverything, "found None";
    }
}

mod sources {
    use super::*;

    mutants! { source_checks, TestSource as SourceFixture, SourceFlaw:
        supplied_objects_have_their_ids: DamagedContent, "an object with the id";
        kinds_are_those_of_the_objects: EverythingIsABlob, "to be Some(Tree)";
        sizes_are_those_of_the_objects: SizesIncludeHeaders, "`size` to return that of";
        ranges_are_parts_of_the_objects: InclusiveRanges, "`read_range` of 0..0";
        objects_that_a_source_lacks_are_not_found: FindsEveryId, "an unknown id to return None";
        objects_of_other_kinds_are_errors: CommitsAreMissing, "Reason::WrongKind";
        threads_read_at_once: OneReaderOnly, "busy";
    }
}

/// A fixture uses several of the macros in one module, so no two checks have one name.
#[test]
fn checks_of_different_suites_have_different_names() {
    let names = [
        runtime_checks().iter().map(Check::name).collect::<Vec<_>>(),
        store_checks().iter().map(Check::name).collect(),
        source_checks().iter().map(Check::name).collect(),
    ]
    .concat();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}
