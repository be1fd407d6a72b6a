//! One job's conversation with its guest, over whatever connects them.

use std::time::{Duration, Instant};

use manifold_runtime_api::abi::{Encoding, Session};
use manifold_runtime_api::{Error, Limit, MemoryReservation};

use crate::wire::{Diagnostics, Received, Wire};

/// How a conversation came to its end.
pub(crate) enum End {
    /// The guest has named its outcome, or the session knows why there will be none.
    Settled,
    /// The guest is to be stopped for this.
    Stopped(Error),
    /// The guest has closed its end: `half`, when in the middle of a line; `unanswered`, when it had a request answered that took
    /// its time, and was gone by then.
    Silence { half: bool, unanswered: bool },
}

/// Talks until the job is settled. Only the time in which the guest does not answer counts as its computing time.
///
/// A guest's job is over when its outcome is named: what it says after that is not heard.
pub(crate) async fn converse(wire: &mut Wire, session: &Session, memory: &mut Buffers) -> End {
    let limits = session.job().limits;
    let bound = limits.guest_request_bytes;
    let log = |line: &str| session.log(line);
    let mut diagnostics = Diagnostics::new(&log);
    let mut clock = Clock { left: limits.compute_time };
    let too_long = || End::Stopped(Limit::ComputeTime { time: limits.compute_time }.into());
    let mut unanswered = false;
    let end = loop {
        let line = match clock.wait(wire.line(bound, &mut diagnostics)).await {
            Some(Received::Line(line)) => line,
            Some(Received::TooLong) => {
                break End::Stopped(Limit::GuestRequest { bytes: bound }.into());
            }
            Some(Received::End { rest }) => break End::Silence { half: rest > 0, unanswered },
            None => break too_long(),
        };
        if let Err(breach) = memory.hold(line.len()) {
            break End::Stopped(breach.into());
        }
        let mut reply = session.call(Encoding::Json, &line).await.body;
        if let Err(breach) = memory.hold(reply.len()) {
            break End::Stopped(breach.into());
        }
        if session.has_ended() {
            break End::Settled;
        }
        unanswered = wire.is_closed(&mut diagnostics);
        reply.push(b'\n');
        if session.has_outcome() {
            // Nothing depends on whether the guest hears it.
            let _ =
                tokio::time::timeout(FAREWELL, wire.send(&reply, bound, &mut diagnostics)).await;
            break End::Settled;
        }
        // A guest that cannot be told anything may have left words to read.
        if clock.wait(wire.send(&reply, bound, &mut diagnostics)).await.is_none() {
            break too_long();
        }
    };
    diagnostics.flush();
    end
}

/// What a job's requests and responses take here of its call's memory.
pub(crate) struct Buffers {
    reservation: MemoryReservation,
    held: u64,
}

impl Buffers {
    pub(crate) fn new(reservation: MemoryReservation) -> Self {
        Self { reservation, held: 0 }
    }

    /// Charges a text, unless there was one as long before.
    fn hold(&mut self, bytes: usize) -> Result<(), Limit> {
        let more = (bytes as u64).saturating_sub(self.held);
        self.reservation.grow(more)?;
        self.held += more;
        Ok(())
    }
}

/// How long the answer to `out` may take to get through.
const FAREWELL: Duration = Duration::from_millis(50);

struct Clock {
    left: Duration,
}

impl Clock {
    /// Waits for the guest; `None` when its time is over.
    async fn wait<T>(&mut self, guest: impl Future<Output = T>) -> Option<T> {
        let start = Instant::now();
        let result = tokio::time::timeout(self.left, guest).await.ok();
        self.left = self.left.saturating_sub(start.elapsed());
        result
    }
}
