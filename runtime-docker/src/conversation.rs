//! The exchange of requests and responses between a job and its guest, over a [`Wire`].

use std::time::{Duration, Instant};

use manifold_runtime_api::abi::{Encoding, Reply, Session};
use manifold_runtime_api::{Error, JobPhase, Limit, MemoryReservation, Report};

use crate::wire::{Diagnostics, Received, Wire};

/// How a conversation ended.
pub(crate) enum End {
    /// The guest has named its outcome, or the session knows why there will be none.
    Settled,
    /// The guest must be stopped because of this error.
    Stopped(Error),
    /// The guest closed its end of the wire. `mid_line` is true if that was in the middle of a
    /// line.
    Closed { mid_line: bool },
}

/// Serves the guest's requests until the job is settled. Only the time spent waiting for the guest
/// counts as its computing time.
///
/// A guest counts as starting until its first request. The job is over when the guest has named its outcome. Anything that the guest writes after that
/// is ignored.
pub(crate) async fn converse(wire: &mut Wire, session: &Session, memory: &mut Buffers) -> End {
    let limits = session.job().limits;
    let bound = limits.guest_request_bytes;
    let log = |line: &str| session.log(line);
    let mut diagnostics = Diagnostics::new(&log);
    let mut clock = Clock { left: limits.compute_time };
    let too_long = || End::Stopped(Limit::ComputeTime { time: limits.compute_time }.into());
    let mut has_started = false;
    let end = loop {
        let line = match clock.wait(wire.line(bound, &mut diagnostics)).await {
            Some(Received::Line(line)) => line,
            Some(Received::TooLong) => {
                break End::Stopped(Limit::GuestRequest { bytes: bound }.into());
            }
            Some(Received::End { rest }) => break End::Closed { mid_line: rest > 0 },
            None => break too_long(),
        };
        if !has_started {
            session.report(Report::Phase(JobPhase::Compute));
            has_started = true;
        }
        if let Err(breach) = memory.hold(line.len()) {
            break End::Stopped(breach.into());
        }
        let mut reply = match session.call(Encoding::Json, &line).await {
            Reply::Continue(response) => response,
            Reply::Ended(_) => break End::Settled,
        };
        if let Err(breach) = memory.hold(reply.len()) {
            break End::Stopped(breach.into());
        }
        reply.push(b'\n');
        if session.has_outcome() {
            // The result is ignored: nothing depends on whether the guest receives this response.
            let _ = tokio::time::timeout(
                LAST_RESPONSE_TIMEOUT,
                wire.send(&reply, bound, &mut diagnostics),
            )
            .await;
            break End::Settled;
        }
        // An error of `send` is ignored: a guest that reads nothing more may still have written
        // requests.
        if clock.wait(wire.send(&reply, bound, &mut diagnostics)).await.is_none() {
            break too_long();
        }
    };
    diagnostics.flush();
    end
}

/// Charges a job's requests and responses to its call's memory budget.
pub(crate) struct Buffers {
    reservation: MemoryReservation,
    /// Length in bytes of the longest request or response so far.
    held: u64,
}

impl Buffers {
    pub(crate) fn new(reservation: MemoryReservation) -> Self {
        Self { reservation, held: 0 }
    }

    /// Charges a text of `bytes` bytes, as far as it is longer than all texts before it.
    fn hold(&mut self, bytes: usize) -> Result<(), Limit> {
        let more = (bytes as u64).saturating_sub(self.held);
        self.reservation.grow(more)?;
        self.held += more;
        Ok(())
    }
}

/// Maximum time to send the response to the request that names the outcome.
const LAST_RESPONSE_TIMEOUT: Duration = Duration::from_millis(50);

/// Counts the guest's computing time.
struct Clock {
    /// Computing time that the guest has left.
    left: Duration,
}

impl Clock {
    /// Waits for the guest; returns `None` if its computing time runs out first.
    async fn wait<T>(&mut self, guest: impl Future<Output = T>) -> Option<T> {
        let start = Instant::now();
        let result = tokio::time::timeout(self.left, guest).await.ok();
        self.left = self.left.saturating_sub(start.elapsed());
        result
    }
}
