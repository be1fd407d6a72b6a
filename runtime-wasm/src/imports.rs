//! The guest ABI as imports: `call` and `read`, in the modules `caos_abi_v1` and `caos_abi_v2`.

use std::sync::Arc;

use manifold_runtime_api::abi::Encoding;
use manifold_runtime_api::{Error, Limit, abi};
use wasmtime::{Caller, Linker, Memory};

use crate::guest_state::{self, GuestState};
use crate::mailbox::Request;

/// Adds the functions of both ABIs to `linker`.
pub(crate) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(abi::NAME, "call", |mut caller, (pointer, length): (u32, u32)| {
        Box::new(async move { call(&mut caller, Encoding::Json, pointer, length).await })
    })?;
    linker.func_wrap(abi::NAME, "read", |mut caller: Caller<'_, GuestState>, pointer: u32| {
        read(&mut caller, pointer)
    })?;
    linker.func_wrap_async(
        abi::BINARY_NAME,
        "call",
        |caller, (pointer, length, room, capacity): (u32, u32, u32, u32)| {
            Box::new(call_into(caller, pointer, length, room, capacity))
        },
    )?;
    linker.func_wrap(
        abi::BINARY_NAME,
        "read",
        |mut caller: Caller<'_, GuestState>, pointer: u32| read(&mut caller, pointer),
    )?;
    Ok(())
}

/// Exchanges the request at `pointer` for a response, keeps the response for `read`, and returns
/// its length in bytes.
async fn call(
    caller: &mut Caller<'_, GuestState>,
    encoding: Encoding,
    pointer: u32,
    length: u32,
) -> wasmtime::Result<u32> {
    let limit = caller.data().usage.limits().guest_request_bytes;
    if u64::from(length) > limit {
        return Err(wasmtime::Error::new(Error::from(Limit::GuestRequest { bytes: limit })));
    }
    guest_state::charge_fuel(&mut *caller)?;
    // Freed first: the guest may be suspended for long, with frames like this one below it.
    caller.data_mut().response = Vec::new();
    let body = slice(caller, "call", pointer, length as usize)?.to_vec();
    let mailbox = Arc::clone(&caller.data().mailbox);
    let response = mailbox.exchange(Request { encoding, body }).await;
    let length = u32::try_from(response.len()).map_err(wasmtime::Error::new)?;
    caller.data_mut().response = response;
    Ok(length)
}

/// Like [`call`], and also copies the response to the guest's buffer at `room` if it fits. Most
/// responses do, which saves the guest a call of `read`.
async fn call_into(
    mut caller: Caller<'_, GuestState>,
    pointer: u32,
    length: u32,
    room: u32,
    capacity: u32,
) -> wasmtime::Result<u32> {
    // Checked first, so that no request is served whose response cannot be delivered.
    slice(&mut caller, "call", room, capacity as usize)?;
    let length = call(&mut caller, Encoding::Binary, pointer, length).await?;
    if length <= capacity {
        read(&mut caller, room)?;
    }
    Ok(length)
}

/// Copies the last response to the guest's memory at `pointer`.
fn read(caller: &mut Caller<'_, GuestState>, pointer: u32) -> wasmtime::Result<()> {
    let response = std::mem::take(&mut caller.data_mut().response);
    count_work(caller, response.len())?;
    slice(caller, "read", pointer, response.len())?.copy_from_slice(&response);
    caller.data_mut().response = response;
    Ok(())
}

/// Counts `bytes` that a function of the host is to read or write. Such a call is a few bytes of the
/// guest's code, and the engine checks the computing time only at loops and functions of the guest.
///
/// Errors if the computing time exceeds its limit.
pub(crate) fn count_work(
    caller: &mut Caller<'_, GuestState>,
    bytes: usize,
) -> wasmtime::Result<()> {
    const OF_A_CALL: usize = 64;
    const BETWEEN_CHECKS: usize = 1 << 20;
    let state = caller.data_mut();
    state.unchecked_work = state.unchecked_work.saturating_add(bytes).saturating_add(OF_A_CALL);
    if state.unchecked_work < BETWEEN_CHECKS {
        return Ok(());
    }
    state.unchecked_work = 0;
    guest_state::check_time(state)
}

/// Returns `length` bytes of the guest's memory at `pointer`. `function` names the import in the
/// error if they are out of bounds.
pub(crate) fn slice<'a>(
    caller: &'a mut Caller<'_, GuestState>,
    function: &str,
    pointer: u32,
    length: usize,
) -> wasmtime::Result<&'a mut [u8]> {
    let memory = memory(caller)?;
    let start = pointer as usize;
    let size = memory.data_size(&*caller);
    let end = start.checked_add(length).filter(|end| *end <= size);
    match end {
        Some(end) => Ok(&mut memory.data_mut(caller)[start..end]),
        None => Err(wasmtime::Error::new(Error::abi_violation(format!(
            "`{function}` was called with {length} bytes at address {pointer}, outside the guest's \
             memory of {size} bytes"
        )))),
    }
}

fn memory(caller: &mut Caller<'_, GuestState>) -> wasmtime::Result<Memory> {
    if let Some(memory) = caller.data().memory {
        return Ok(memory);
    }
    let memory =
        caller.get_export("memory").and_then(wasmtime::Extern::into_memory).ok_or_else(|| {
            wasmtime::Error::new(Error::abi_violation("the guest does not export `memory`"))
        })?;
    caller.data_mut().memory = Some(memory);
    Ok(memory)
}
