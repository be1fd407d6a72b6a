//! `manifold types`: prints the TypeScript declarations.

use crate::args::Types;
use crate::error::CliError;

#[cfg(feature = "v8")]
pub(crate) fn types(_: &Types) -> Result<(), CliError> {
    crate::report::print(manifold_runtime_v8::DECLARATIONS.as_bytes())
}

#[cfg(not(feature = "v8"))]
pub(crate) fn types(_: &Types) -> Result<(), CliError> {
    Err(CliError::BuiltWithoutV8)
}
