//! The ways in which a toy runtime can violate its contract.

/// A violation of the contract of a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Each instance has another host image.
    HostImageOfEachInstance,
    /// The capabilities change when a job has run.
    CapabilitiesAfterAJob,
    /// Every outcome is reported as a blob.
    OutcomeIsABlob,
    /// A guest does not see the salt of its job.
    SaltIsHidden,
    /// Blobs are stored without their last byte if they are longer than 100 bytes.
    StoresPartOfABlob,
    /// The entries of a tree arrive in reverse.
    ReversedTree,
    /// A range ends one byte too late.
    RangeIsTooLong,
    /// The image reference of a nested run loses its spaces.
    TrimsImageReferences,
    /// The results of `run_many` arrive in reverse.
    ReversedResults,
    /// `run_many` asks its host for the runs one by one, and keeps ten results.
    TenResults,
    /// A guest can read the clock.
    Clock,
    /// A guest can see the number of the instance that runs it.
    InstanceNumber,
    /// A guest can see how many others run.
    NeighborsAreVisible,
    /// A guest can see its memory limit.
    LimitsAreVisible,
    /// A global variable is shared by all guests.
    SharedGlobal,
    /// Only eight jobs run at once, including those that wait.
    EightSlots,
    /// A computing guest goes on after its future was dropped.
    DetachedWhileComputing,
    /// A waiting guest goes on after its future was dropped.
    DetachedWhileWaiting,
    /// The message of a failed guest is replaced.
    NoMessage,
    /// The panic of a guest is the panic of the runtime.
    PanicsEscape,
    /// A guest without an outcome is reported as a failure of the runtime.
    SilenceIsARuntimeFailure,
    /// A missing argument makes the runtime panic.
    MissingArgumentsPanic,
    /// The runtime ends a job when an operation of its guest fails.
    ErrorsEndTheJob,
    /// The errors of a job have no causes.
    NoCauses,
    /// A computing guest does not yield to other tasks.
    NeverYields,
    /// An instance runs no more jobs after a guest has breached a limit.
    BrokenByABreach,
    /// Preparing a module stores an object.
    PreparingStores,
    /// A module that cannot be loaded makes the runtime wait for ever.
    WaitsForABadModule,
    /// A module that was missing once is missing for ever.
    RemembersMissingModules,
    /// The size of a module is not limited.
    UnlimitedModules,
    /// Containers are run as if they were a module.
    RunsContainers,
    /// The computing time is not limited.
    UnlimitedComputing,
    /// Waiting for the host counts as computing.
    WaitingCounts,
    /// A guest that reaches its memory limit fails as by a trap.
    MemoryIsATrap,
    /// A guest can catch a breach.
    BreachesAreCaught,
    /// The size of requests is not limited.
    UnlimitedRequests,
    /// The size of responses is not limited.
    UnlimitedResponses,
    /// The fuel of a frame is not limited.
    UnlimitedFuel,
    /// The budget of fuel is not charged.
    FuelIsNotCharged,
    /// The budget of memory is not charged.
    MemoryIsNotCharged,
    /// Memory is not given back to its budget.
    MemoryIsNotGivenBack,
    /// Messages are not written to the log.
    NoLog,
    /// The log is not limited.
    UnlimitedLog,
}
