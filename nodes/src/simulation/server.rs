//! The simulated NATS server: everything between two nodes goes through it, one after the other.

use super::Nanos;

/// What the server does for one thing, from `shared` measurements on two cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// It passes a message on.
    Message,
    /// It reads an entry.
    Get,
    /// It writes an entry: 27,000 in a second.
    Put,
}

impl Service {
    const fn time(self) -> Nanos {
        match self {
            Self::Message => 2_000,
            Self::Get => 16_000,
            Self::Put => 37_000,
        }
    }
}

/// The server, and what it has done.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// When it has done everything that it was asked for.
    free: Nanos,
    pub(super) busy: Nanos,
    pub(super) messages: u64,
    pub(super) entries: u64,
}

impl Server {
    /// Returns when the server has done something for which it was asked at `now`.
    pub(super) fn serve(&mut self, now: Nanos, service: Service) -> Nanos {
        self.free = self.free.max(now) + service.time();
        self.busy += service.time();
        match service {
            Service::Message => self.messages += 1,
            Service::Get | Service::Put => self.entries += 1,
        }
        self.free
    }

    /// Serves something nobody waits for `count` times.
    pub(super) fn serve_all(&mut self, now: Nanos, service: Service, count: u64) {
        for _ in 0..count {
            self.serve(now, service);
        }
    }
}
