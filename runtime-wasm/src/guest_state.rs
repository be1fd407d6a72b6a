//! What the host keeps beside one instance.

use std::sync::Arc;
use std::time::Instant;

use manifold_runtime_api::{
    Error, Limit, Limits, MemoryReservation, Meter, Reason, Result, Status,
};
use wasmtime::{AsContextMut, Memory, ResourceLimiter, Store, UpdateDeadline};

use crate::mailbox::Mailbox;

pub(crate) struct GuestState {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) limits: Limits,
    pub(crate) memory: Option<Memory>,
    /// What `read` copies out.
    pub(crate) response: Vec<u8>,
    /// Bytes of all memories together.
    memory_bytes: u64,
    /// The same bytes, of those that the whole call may have.
    reservation: MemoryReservation,
    meter: Arc<Meter>,
    /// How much fuel there was when the meter was charged last; `None` when nobody counts.
    fuel: Option<u64>,
    /// Elements of all tables together.
    table_elements: u64,
    /// How much time has passed on the guest's clocks, in nanoseconds.
    pub(crate) clock: u64,
    /// What standard output and error hold of a line that has not ended.
    pub(crate) written: [Vec<u8>; 2],
    /// How much more text of standard output and error is passed on. The rest would be dropped from the log anyway.
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
    /// Passes on the lines of standard output and error that have ended; at the end, what is left, too.
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

/// Fails if the guest has computed for longer than it may by `now`.
pub(crate) fn check_computing_time(mailbox: &Mailbox, limits: &Limits, now: Instant) -> Result<()> {
    let time = limits.compute_time;
    if mailbox.computing_time(now) > time {
        Err(Limit::ComputeTime { time }.into())
    } else {
        Ok(())
    }
}

/// Applies the limits to everything that runs in `store` from now on.
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
    // An engine that counts no fuel takes none.
    let state = store.data();
    if state.limits.fuel.or(state.meter.fuel_bound()).is_some() {
        let fuel = state.limits.fuel.unwrap_or(u64::MAX).min(state.meter.fuel_left());
        store.set_fuel(fuel)?;
        store.data_mut().fuel = Some(fuel);
    }
    Ok(())
}

/// Charges the call's meter with the fuel that was used since it was charged last.
pub(crate) fn charge_fuel(
    mut context: impl AsContextMut<Data = GuestState>,
) -> wasmtime::Result<()> {
    let mut context = context.as_context_mut();
    let Some(before) = context.data().fuel else { return Ok(()) };
    let left = context.get_fuel()?;
    context.data_mut().fuel = Some(left);
    context.data().meter.burn(before.saturating_sub(left)).map_err(breach)
}

/// What a guest breached that has no fuel left: the whole call's bound if nothing is left of it, or else its own.
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

/// A guest may see its own maximum. The host's limit ends it, for an answer must not depend on it; a `maximum` above the limit
/// may be the allocator's. What counts is the sum over all memories, or tables, of the guest.
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

/// The guest must not see that the machine is short of memory, either.
fn out_of_memory(error: &wasmtime::Error) -> wasmtime::Error {
    let problem = format!("the host cannot grow a guest's memory or table: {error:#}");
    wasmtime::Error::new(Error::new(Reason::RuntimeFailed { problem, status: Status::Transient }))
}
