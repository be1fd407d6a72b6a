//! `caos_abi_v1.call` and `caos_abi_v1.read`.

use std::sync::Arc;

use manifold_runtime_api::{Error, Limit, abi};
use wasmtime::{Caller, Linker, Memory};

use crate::guest_state::{self, GuestState};

pub(crate) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(abi::NAME, "call", |caller, (pointer, length): (u32, u32)| {
        Box::new(call(caller, pointer, length))
    })?;
    linker.func_wrap(abi::NAME, "read", read)?;
    Ok(())
}

async fn call(mut caller: Caller<'_, GuestState>, pointer: u32, length: u32) -> wasmtime::Result<u32> {
    let limit = caller.data().limits.guest_request_bytes;
    if u64::from(length) > limit {
        return Err(wasmtime::Error::new(Error::from(Limit::GuestRequest { bytes: limit })));
    }
    guest_state::charge_fuel(&mut caller)?;
    let request = slice(&mut caller, "call", pointer, length as usize)?.to_vec();
    let mailbox = Arc::clone(&caller.data().mailbox);
    let response = mailbox.exchange(request).await;
    let length = u32::try_from(response.len()).map_err(wasmtime::Error::new)?;
    caller.data_mut().response = response;
    Ok(length)
}

fn read(mut caller: Caller<'_, GuestState>, pointer: u32) -> wasmtime::Result<()> {
    let response = std::mem::take(&mut caller.data_mut().response);
    slice(&mut caller, "read", pointer, response.len())?.copy_from_slice(&response);
    caller.data_mut().response = response;
    Ok(())
}

/// The guest's memory from `pointer` on.
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
            "`{function}` was given {length} bytes at {pointer}, which is outside the guest's memory of {size} bytes"
        )))),
    }
}

fn memory(caller: &mut Caller<'_, GuestState>) -> wasmtime::Result<Memory> {
    if let Some(memory) = caller.data().memory {
        return Ok(memory);
    }
    let memory = caller
        .get_export("memory")
        .and_then(wasmtime::Extern::into_memory)
        .ok_or_else(|| wasmtime::Error::new(Error::abi_violation("the guest exports no `memory`")))?;
    caller.data_mut().memory = Some(memory);
    Ok(memory)
}
