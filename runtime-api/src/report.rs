//! [`Report`]: what a runtime says about a job that it runs, for traces.

/// What a runtime reports about a job while it runs it. See [`Host::report`](crate::Host::report).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// From now on, the job is in this phase.
    Phase(JobPhase),
    /// The guest has used this much memory at most, in bytes.
    PeakMemory(u64),
    /// The guest has burnt this much fuel.
    Fuel(u64),
}

/// What a job does, as only its runtime knows it. A job begins in [`JobPhase::Compute`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobPhase {
    /// The module is read, validated, compiled or transpiled, or a container image is loaded.
    Prepare,
    /// The job waits for something that other jobs use, such as a container.
    Queue,
    /// The guest is being started: an instance, a context or a process.
    Start,
    /// The guest runs.
    Compute,
}
