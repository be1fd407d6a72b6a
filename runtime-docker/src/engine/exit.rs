//! How a container ended.

use std::time::Duration;

use bollard::models::ContainerState;

/// How long a process may take to end after it has named its outcome or closed its standard output.
pub(crate) const EXIT_GRACE: Duration = Duration::from_secs(2);

/// How a container ended.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) out_of_memory: bool,
    pub(crate) exit_code: i64,
}

/// The status with which the guest SDK exits when its host is gone.
pub(crate) const LOST_ITS_HOST: u8 = 86;

impl Exit {
    /// Returns how a container in this state ended; `None` if it is running.
    pub(crate) fn of(state: ContainerState) -> Option<Self> {
        let ContainerState { running, oom_killed, exit_code, .. } = state;
        (running != Some(true)).then(|| Self {
            out_of_memory: oom_killed == Some(true),
            exit_code: exit_code.unwrap_or_default(),
        })
    }

    /// Returns whether the container's own program ended it, as far as the exit code shows. An
    /// engine that has lost a container reports 255, and an engine that restarts kills the
    /// containers that it finds.
    pub(crate) fn ended_by_itself(&self) -> bool {
        const KILLED: i64 = 128 + 9;
        const UNKNOWN_STATUS: i64 = 255;
        ![KILLED, LOST_ITS_HOST.into(), UNKNOWN_STATUS].contains(&self.exit_code)
    }
}
