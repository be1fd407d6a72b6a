//! The host's state of one instance: its usage, last response and pending log text.

use std::sync::Arc;
use std::time::Instant;

use manifold_runtime_api::{Limits, Meter};
use wasmtime::{AsContextMut, Memory, Store, UpdateDeadline};

use crate::limits::{Usage, check_computing_time};
use crate::mailbox::Mailbox;

/// The data of an instance's [`Store`].
pub(crate) struct GuestState {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) usage: Usage,
    pub(crate) memory: Option<Memory>,
    /// The last response, which `read` copies to the guest.
    pub(crate) response: Vec<u8>,
    /// What functions of the host have done since the last check of the computing time, in bytes.
    pub(crate) unchecked_work: usize,
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
            usage: Usage::new(limits, meter),
            memory: None,
            response: Vec::new(),
            unchecked_work: 0,
            clock: 0,
            written: [Vec::new(), Vec::new()],
            log_bytes_left: limits.log_bytes.saturating_add(1),
        }
    }

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

/// Applies the limits to all code that runs in `store` from now on.
pub(crate) fn limit(store: &mut Store<GuestState>) -> wasmtime::Result<()> {
    store.limiter(|state| &mut state.usage);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| {
        charge_fuel(&mut context)?;
        check_time(context.data())?;
        Ok(UpdateDeadline::Yield(1))
    });
    // Without a bound on fuel the engine does not count it, and setting it would fail.
    if let Some(fuel) = store.data().usage.fuel_bound() {
        store.set_fuel(fuel)?;
        store.data_mut().usage.count_fuel(fuel);
    }
    Ok(())
}

/// Errors if the guest's computing time exceeds its limit.
pub(crate) fn check_time(state: &GuestState) -> wasmtime::Result<()> {
    check_computing_time(state.usage.limits(), state.mailbox.computing_time(Instant::now()))
        .map_err(wasmtime::Error::new)
}

/// Charges the root call's meter with the fuel used since the last charge.
pub(crate) fn charge_fuel(
    mut context: impl AsContextMut<Data = GuestState>,
) -> wasmtime::Result<()> {
    let mut context = context.as_context_mut();
    if !context.data().usage.counts_fuel() {
        return Ok(());
    }
    let left = context.get_fuel()?;
    context.data_mut().usage.charge_fuel(left)
}
