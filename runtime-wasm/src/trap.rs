//! Maps how a guest ended to the result of its job.

use std::fmt::Write;

use manifold_runtime_api::{Error, Limit, Reason, Result, Status};
use wasmtime::{Trap, WasmBacktrace};

use crate::engines::WASM_STACK;
use crate::wasi::Exit;

/// Converts the end of a guest to a result: `Ok` if it returned or called `proc_exit(0)`, and an
/// error if it exited with another status, trapped, breached a limit, or if the machine lacked a
/// resource.
pub(crate) fn explain(end: wasmtime::Result<()>) -> Result<()> {
    let Err(stop) = end else { return Ok(()) };
    if let Some(error) = stop.downcast_ref::<Error>() {
        return Err(error.clone());
    }
    if let Some(Exit(status)) = stop.downcast_ref::<Exit>() {
        return match status {
            0 => Ok(()),
            _ => Err(Error::new(Reason::Exited { status: i64::from(*status) })),
        };
    }
    match stop.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => Err(Limit::Stack { bytes: WASM_STACK as u64 }.into()),
        Some(trap) => {
            Err(Error::new(Reason::Trapped { trap: describe(*trap, stop.downcast_ref()) }))
        }
        // All other errors are failures of the machine, such as no memory or no further mapping.
        None => Err(Error::new(Reason::RuntimeFailed {
            problem: format!("{stop:#}"),
            status: Status::Transient,
        })),
    }
}

/// Maximum number of functions in a trap's description, innermost first.
const FUNCTIONS_NAMED: usize = 4;

fn describe(trap: Trap, backtrace: Option<&WasmBacktrace>) -> String {
    let mut text = trap.to_string();
    let functions = backtrace.map(WasmBacktrace::frames).unwrap_or_default();
    for (index, function) in functions.iter().take(FUNCTIONS_NAMED).enumerate() {
        let lead = if index == 0 { " in" } else { " ←" };
        let name = function.func_name().map(|name| name.chars().take(100).collect::<String>());
        let name = name.unwrap_or_else(|| format!("function {}", function.func_index()));
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{lead} {name}");
    }
    text
}
