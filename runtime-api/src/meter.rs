//! [`Meter`]: the fuel and memory that all frames of a root call share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::reason::Limit;

/// The budget for fuel and memory of one root call, shared by all its frames.
///
/// A runtime charges the meter in addition to enforcing the frame's own [`Limits`](crate::Limits).
/// If the meter returns an error, the runtime stops the guest.
#[derive(Debug)]
pub struct Meter {
    fuel: Quota,
    memory: Quota,
}

#[derive(Debug)]
struct Quota {
    bound: u64,
    left: AtomicU64,
    breached: AtomicBool,
}

impl Meter {
    /// Creates a meter with a budget of `fuel` units, as the runtimes count them, and
    /// `memory_bytes` bytes. `u64::MAX` means unlimited.
    pub fn new(fuel: u64, memory_bytes: u64) -> Self {
        Self { fuel: Quota::new(fuel), memory: Quota::new(memory_bytes) }
    }

    /// Creates a meter without bounds, which never returns an error.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX, u64::MAX)
    }

    /// Charges `units` of used fuel.
    ///
    /// # Errors
    /// [`Limit::TotalFuel`] if less than that was left. Then no fuel is left.
    pub fn burn(&self, units: u64) -> Result<(), Limit> {
        if self.fuel.try_take(units) {
            return Ok(());
        }
        self.fuel.left.store(0, Ordering::Relaxed);
        Err(Limit::TotalFuel { units: self.fuel.bound })
    }

    /// Returns the fuel budget, or `None` if it is unlimited and fuel need not be measured.
    pub fn fuel_bound(&self) -> Option<u64> {
        (self.fuel.bound != u64::MAX).then_some(self.fuel.bound)
    }

    /// Returns whether a charge has ever exceeded the fuel or memory budget.
    pub fn is_breached(&self) -> bool {
        self.fuel.breached.load(Ordering::Relaxed) || self.memory.breached.load(Ordering::Relaxed)
    }

    /// Returns how much fuel is left.
    pub fn fuel_left(&self) -> u64 {
        self.fuel.left.load(Ordering::Relaxed)
    }
}

impl Quota {
    fn new(bound: u64) -> Self {
        Self { bound, left: AtomicU64::new(bound), breached: AtomicBool::new(false) }
    }

    fn try_take(&self, amount: u64) -> bool {
        // Skips the atomic counter, so that unlimited meters cause no contention on its cache line.
        if self.bound == u64::MAX {
            return true;
        }
        let charged = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount))
            .is_ok();
        if !charged {
            self.breached.store(true, Ordering::Relaxed);
        }
        charged
    }

    fn give_back(&self, amount: u64) {
        if self.bound != u64::MAX {
            self.left.fetch_add(amount, Ordering::Relaxed);
        }
    }
}

/// The memory that one guest holds of a [`Meter`]'s budget. Dropping the reservation returns all of
/// it.
#[derive(Debug)]
pub struct MemoryReservation {
    meter: Arc<Meter>,
    bytes: u64,
}

impl MemoryReservation {
    /// Creates a reservation of zero bytes.
    pub fn new(meter: Arc<Meter>) -> Self {
        Self { meter, bytes: 0 }
    }

    /// Reserves `bytes` more.
    ///
    /// # Errors
    /// [`Limit::TotalMemory`] if the budget has less than that left. The bytes reserved before stay
    /// reserved.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Limit> {
        if !self.meter.memory.try_take(bytes) {
            return Err(Limit::TotalMemory { bytes: self.meter.memory.bound });
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Changes the reservation to `bytes`: reserves more, or gives some back.
    ///
    /// # Errors
    /// [`Limit::TotalMemory`] if less than the difference is left. The reservation stays as it was.
    pub fn set(&mut self, bytes: u64) -> Result<(), Limit> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                self.meter.memory.give_back(self.bytes - bytes);
                self.bytes = bytes;
                Ok(())
            }
        }
    }

    /// Returns the size of the reservation, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.meter.memory.give_back(self.bytes);
    }
}
