//! What the frames under one call from outside use up together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::reason::Limit;

/// Fuel and memory that all frames of one call from outside share. A runtime charges it beside the frame's own
/// [`Limits`](crate::Limits), and stops the guest when it answers an error.
#[derive(Debug)]
pub struct Meter {
    fuel: Pool,
    memory: Pool,
}

#[derive(Debug)]
struct Pool {
    size: u64,
    left: AtomicU64,
    breached: AtomicBool,
}

impl Meter {
    /// A meter with so much fuel, in units of the runtimes' own, and so many bytes of memory. `u64::MAX` is as good as no bound.
    pub fn new(fuel: u64, memory_bytes: u64) -> Self {
        Self { fuel: Pool::new(fuel), memory: Pool::new(memory_bytes) }
    }

    /// A meter that never answers an error.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX, u64::MAX)
    }

    /// Charges fuel that was used.
    ///
    /// # Errors
    /// [`Limit::TotalFuel`] when that was more than there was.
    pub fn burn(&self, units: u64) -> Result<(), Limit> {
        if self.fuel.take(units) {
            return Ok(());
        }
        self.fuel.left.store(0, Ordering::Relaxed);
        Err(Limit::TotalFuel { units: self.fuel.size })
    }

    /// How much fuel there was at first; `None` when it need not be measured.
    pub fn fuel_bound(&self) -> Option<u64> {
        (self.fuel.size != u64::MAX).then_some(self.fuel.size)
    }

    /// Whether it has answered an error.
    pub fn is_breached(&self) -> bool {
        self.fuel.breached.load(Ordering::Relaxed) || self.memory.breached.load(Ordering::Relaxed)
    }

    /// How much fuel is left.
    pub fn fuel_left(&self) -> u64 {
        self.fuel.left.load(Ordering::Relaxed)
    }
}

impl Pool {
    fn new(size: u64) -> Self {
        Self { size, left: AtomicU64::new(size), breached: AtomicBool::new(false) }
    }

    fn take(&self, amount: u64) -> bool {
        // Without a bound there is nothing to count, and no cache line to fight for.
        if self.size == u64::MAX {
            return true;
        }
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount))
            .is_ok();
        if !taken {
            self.breached.store(true, Ordering::Relaxed);
        }
        taken
    }

    fn give_back(&self, amount: u64) {
        if self.size != u64::MAX {
            self.left.fetch_add(amount, Ordering::Relaxed);
        }
    }
}

/// Memory that one guest holds of a [`Meter`]'s. Dropping it gives everything back.
#[derive(Debug)]
pub struct MemoryReservation {
    meter: Arc<Meter>,
    bytes: u64,
}

impl MemoryReservation {
    /// A reservation of nothing yet.
    pub fn new(meter: Arc<Meter>) -> Self {
        Self { meter, bytes: 0 }
    }

    /// Reserves more.
    ///
    /// # Errors
    /// [`Limit::TotalMemory`] when there is not so much left. What was reserved before stays.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Limit> {
        if !self.meter.memory.take(bytes) {
            return Err(Limit::TotalMemory { bytes: self.meter.memory.size });
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.meter.memory.give_back(self.bytes);
    }
}
