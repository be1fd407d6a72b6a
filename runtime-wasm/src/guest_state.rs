//! The host's state of one instance: its limits, meters, last response and pending log text.

use std::sync::Arc;
use std::time::Instant;

use manifold_runtime_api::{
    Error, Limit, Limits, MemoryReservation, Meter, Reason, Result, Status,
};
use wasmtime::{AsContextMut, Memory, ResourceLimiter, Store, UpdateDeadline};

use crate::mailbox::Mailbox;

/// The data of an instance's [`Store`].
pub(crate) struct GuestState {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) limits: Limits,
    pub(crate) memory: Option<Memory>,
    /// The last response, which `read` copies to the guest.
    pub(crate) response: Vec<u8>,
    /// Size of all the guest's memories, in bytes.
    memory_bytes: u64,
    /// The same bytes, reserved from the memory budget of the root call.
    reservation: MemoryReservation,
    meter: Arc<Meter>,
    /// The fuel that was left when the meter was last charged; `None` if fuel is not counted.
    fuel: Option<u64>,
    /// Number of elements in all the guest's tables.
    table_elements: u64,
    /// Time passed on the guest's clocks, in nanoseconds.
    pub(crate) clock: u64,
    /// The unfinished last lines of standard output and standard error.
    pub(crate) written: [Vec<u8>; 2],
    /// How many more bytes of standard output and standard error are logged. The log would drop the
    /// rest anyway.
    pub(crate) log_bytes_left: u64,
}

impl GuestState {
    pub(crate) fn new(mailbox: Arc<Mailbox>, limits: Limits, meter: Arc<Meter>) -> Self {
        Self {
            mailbox,
            limits,
            reservation: MemoryReservation::new(Arc::clone(&meter)),
            meter,
            fuel: None,
            memory: None,
            response: Vec::new(),
            memory_bytes: 0,
            table_elements: 0,
            clock: 0,
            written: [Vec::new(), Vec::new()],
            log_bytes_left: limits.log_bytes.saturating_add(1),
        }
    }
}

impl GuestState {
    /// Logs the finished lines of standard output and standard error, and the unfinished ones as
    /// well if `is_end`.
    pub(crate) fn log_written(&mut self, is_end: bool) {
        for text in &mut self.written {
            let whole = match text.iter().rposition(|byte| *byte == b'\n') {
                Some(last) => last + 1,
                None => 0,
            };
            let whole = if is_end { text.len() } else { whole };
            let rest = text.split_off(whole);
            let lines = std::mem::replace(text, rest);
            if !lines.is_empty() {
                let lines = String::from_utf8_lossy(&lines);
                self.mailbox.log(lines.strip_suffix('\n').unwrap_or(&lines).to_owned());
            }
        }
    }
}

/// Errors if the guest's computing time at `now` exceeds its limit.
pub(crate) fn check_computing_time(mailbox: &Mailbox, limits: &Limits, now: Instant) -> Result<()> {
    let time = limits.compute_time;
    if mailbox.computing_time(now) > time {
        Err(Limit::ComputeTime { time }.into())
    } else {
        Ok(())
    }
}

/// Applies the limits to all code that runs in `store` from now on.
pub(crate) fn limit(store: &mut Store<GuestState>) -> wasmtime::Result<()> {
    store.limiter(|state| state);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| {
        charge_fuel(&mut context)?;
        let state = context.data();
        check_computing_time(&state.mailbox, &state.limits, Instant::now())
            .map_err(wasmtime::Error::new)?;
        Ok(UpdateDeadline::Yield(1))
    });
    // Without a bound on fuel the engine does not count it, and setting it would fail.
    let state = store.data();
    if state.limits.fuel.or(state.meter.fuel_bound()).is_some() {
        let fuel = state.limits.fuel.unwrap_or(u64::MAX).min(state.meter.fuel_left());
        store.set_fuel(fuel)?;
        store.data_mut().fuel = Some(fuel);
    }
    Ok(())
}

/// Charges the root call's meter with the fuel used since the last charge.
pub(crate) fn charge_fuel(
    mut context: impl AsContextMut<Data = GuestState>,
) -> wasmtime::Result<()> {
    let mut context = context.as_context_mut();
    let Some(before) = context.data().fuel else { return Ok(()) };
    let left = context.get_fuel()?;
    context.data_mut().fuel = Some(left);
    context.data().meter.burn(before.saturating_sub(left)).map_err(breach)
}

/// Returns the breach of a guest that ran out of fuel: of the root call's budget if that is used
/// up, and of the frame's own limit otherwise.
pub(crate) fn out_of_fuel(state: &GuestState) -> Error {
    let total = state.meter.fuel_bound().filter(|_| state.meter.fuel_left() == 0);
    match (total, state.limits.fuel) {
        (None, Some(units)) => Limit::Fuel { units }.into(),
        (total, _) => Limit::TotalFuel { units: total.unwrap_or_default() }.into(),
    }
}

fn breach(limit: Limit) -> wasmtime::Error {
    wasmtime::Error::new(Error::from(limit))
}

impl ResourceLimiter for GuestState {
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
