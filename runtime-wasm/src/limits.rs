//! What bounds a guest: its limits, what it has used of them, and the root call's budgets.

use std::sync::Arc;
use std::time::Duration;

use manifold_runtime_api::abi::Session;
use manifold_runtime_api::{
    Error, Limit, Limits, MemoryReservation, Meter, Reason, Report, Result, Status,
};
use wasmtime::ResourceLimiter;

/// The limits of one guest, and what it has used of them.
pub(crate) struct Usage {
    limits: Limits,
    /// Size of all the guest's memories, in bytes.
    memory_bytes: u64,
    /// The same bytes, reserved from the memory budget of the root call.
    reservation: MemoryReservation,
    meter: Arc<Meter>,
    /// The fuel that was left when the meter was last charged; `None` if fuel is not counted.
    fuel: Option<u64>,
    /// The fuel that the guest had at first.
    all_fuel: u64,
    /// Number of elements in all the guest's tables.
    table_elements: u64,
}

impl Usage {
    pub(crate) fn new(limits: Limits, meter: Arc<Meter>) -> Self {
        Self {
            limits,
            memory_bytes: 0,
            reservation: MemoryReservation::new(Arc::clone(&meter)),
            meter,
            fuel: None,
            all_fuel: 0,
            table_elements: 0,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the fuel that the guest may use, in units; `None` if nothing bounds it.
    pub(crate) fn fuel_bound(&self) -> Option<u64> {
        self.limits.fuel.or(self.meter.fuel_bound())?;
        Some(self.limits.fuel.unwrap_or(u64::MAX).min(self.meter.fuel_left()))
    }

    /// Counts fuel from now on: the guest has `units` left.
    pub(crate) fn count_fuel(&mut self, units: u64) {
        self.fuel = Some(units);
        self.all_fuel = units;
    }

    pub(crate) fn counts_fuel(&self) -> bool {
        self.fuel.is_some()
    }

    /// Charges the root call's meter with the fuel used since the last charge. The guest has `left`
    /// units left.
    pub(crate) fn charge_fuel(&mut self, left: u64) -> wasmtime::Result<()> {
        let Some(before) = self.fuel else { return Ok(()) };
        self.fuel = Some(left);
        self.meter.burn(before.saturating_sub(left)).map_err(breach)
    }

    /// Reports the memory that the guest has at its end, which is its peak, because memories only
    /// grow, and the fuel that it has used, if that was counted.
    pub(crate) fn report(&self, session: &Session) {
        session.report(Report::PeakMemory(self.memory_bytes));
        if let Some(left) = self.fuel {
            session.report(Report::Fuel(self.all_fuel.saturating_sub(left)));
        }
    }

    /// Returns the breach of a guest that ran out of fuel: of the root call's budget if that is
    /// used up, and of the frame's own limit otherwise.
    pub(crate) fn out_of_fuel(&self) -> Error {
        // The guest has used exactly what was left. One unit more tells the meter of the breach, so
        // that the root call ends at once.
        let total = if self.meter.fuel_left() == 0 { self.meter.burn(1).err() } else { None };
        let own = self.limits.fuel.map(|units| Limit::Fuel { units });
        let no_fuel = Limit::TotalFuel { units: self.meter.fuel_bound().unwrap_or_default() };
        total.or(own).unwrap_or(no_fuel).into()
    }
}

/// Errors if the guest's computing time exceeds its limit.
pub(crate) fn check_computing_time(limits: &Limits, computed: Duration) -> Result<()> {
    let time = limits.compute_time;
    if computed > time { Err(Limit::ComputeTime { time }.into()) } else { Ok(()) }
}

fn breach(limit: Limit) -> wasmtime::Error {
    wasmtime::Error::new(Error::from(limit))
}

impl ResourceLimiter for Usage {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = self.limits.memory_bytes;
        let grows = grow(
            &mut self.memory_bytes,
            current,
            desired,
            maximum,
            bytes,
            Limit::Memory { bytes },
        )?;
        if grows {
            self.reservation.grow(desired.saturating_sub(current) as u64).map_err(breach)?;
        }
        Ok(grows)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = self.limits.table_elements;
        grow(
            &mut self.table_elements,
            current,
            desired,
            maximum,
            elements,
            Limit::Table { elements },
        )
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(out_of_memory(&error))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(out_of_memory(&error))
    }
}

/// Decides whether a memory or table may grow from `current` to `desired`, and adds the growth to
/// `total`, the sum over all memories or tables of the guest.
///
/// Returns `false` if the guest exceeds the `maximum` that it declared itself, which it may
/// observe. Errors if it exceeds the host's `limit`, because an outcome must not depend on that. A
/// `maximum` above the limit is ignored: it may be the allocator's.
fn grow(
    total: &mut u64,
    current: usize,
    desired: usize,
    maximum: Option<usize>,
    limit: u64,
    breached: Limit,
) -> wasmtime::Result<bool> {
    if maximum.is_some_and(|maximum| maximum as u64 <= limit && desired > maximum) {
        return Ok(false);
    }
    let grown = total.saturating_add(desired.saturating_sub(current) as u64);
    if grown > limit {
        return Err(breach(breached));
    }
    *total = grown;
    Ok(true)
}

/// An error that ends the guest, because it must not observe that the machine is short of memory.
fn out_of_memory(error: &wasmtime::Error) -> wasmtime::Error {
    let problem = format!("cannot grow a guest's memory or table: {error:#}");
    wasmtime::Error::new(Error::new(Reason::RuntimeFailed { problem, status: Status::Transient }))
}
