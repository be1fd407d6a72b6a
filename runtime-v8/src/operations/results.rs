//! Creates the guest's values for the results of operations.

use deno_core::v8;
use manifold_runtime_api::abi::{Answer, Failure};
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{Error, ObjectId, ObjectRef, Result};

use crate::values::{Made, new_bytes, text};

/// Creates the value that the promise of the prelude's `op` resolves to (`Ok`) or rejects with
/// (`Err`).
pub(crate) fn write_answer<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    answer: Result<Answer>,
) -> Made<Result<v8::Local<'s, v8::Value>, v8::Local<'s, v8::Value>>> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Some(Err(write_failure(scope, &error)?)),
    };
    Some(Ok(match answer {
        Answer::Tree(tree) => {
            let mut flat = Vec::with_capacity(tree.entries().len() * 5);
            for entry in tree.entries() {
                let (name, bytes) = match entry.name.to_str() {
                    Ok(name) => (text(scope, name)?, v8::undefined(scope).into()),
                    Err(_) => (
                        text(scope, &entry.name.escape_bytes().to_string())?,
                        new_bytes(scope, &entry.name)?.into(),
                    ),
                };
                let (kind, mode) = (
                    constant(scope, entry.mode.kind_str())?,
                    constant(scope, entry.mode.as_str())?,
                );
                flat.extend([name, bytes, kind, id(scope, entry.id)?, mode]);
            }
            v8::Array::new_with_elements(scope, &flat).into()
        }
        Answer::Blob(content) => new_bytes(scope, &content)?.into(),
        Answer::Size(bytes) => v8::Number::new(scope, bytes as f64).into(),
        Answer::Stored(stored) => id(scope, stored)?,
        Answer::Outcome(outcome) => write_outcome(scope, outcome)?,
        Answer::Outcomes(results) => {
            let mut written = Vec::with_capacity(results.len());
            for result in results {
                written.push(match result {
                    Ok(outcome) => write_outcome(scope, outcome)?,
                    Err(error) => {
                        let nothing = v8::undefined(scope).into();
                        let failure = write_failure(scope, &error)?;
                        v8::Array::new_with_elements(scope, &[nothing, nothing, failure]).into()
                    }
                });
            }
            v8::Array::new_with_elements(scope, &written).into()
        }
        _ => v8::undefined(scope).into(),
    }))
}

/// Creates `[message, kind, chain]`.
fn write_failure<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    error: &Error,
) -> Made<v8::Local<'s, v8::Value>> {
    let failure = Failure::from(error);
    let mut chain = Vec::with_capacity(failure.chain.len());
    for line in &failure.chain {
        chain.push(text(scope, line)?);
    }
    let chain = v8::Array::new_with_elements(scope, &chain).into();
    let (message, kind) = (text(scope, &failure.error)?, constant(scope, failure.kind)?);
    Some(v8::Array::new_with_elements(scope, &[message, kind, chain]).into())
}

/// Creates `[kind, hash]`.
fn write_outcome<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    outcome: ObjectRef,
) -> Made<v8::Local<'s, v8::Value>> {
    let (kind, hash) = (constant(scope, outcome.kind.as_str())?, id(scope, outcome.id)?);
    Some(v8::Array::new_with_elements(scope, &[kind, hash]).into())
}

fn id<'s>(scope: &v8::PinScope<'s, '_>, id: ObjectId) -> Made<v8::Local<'s, v8::Value>> {
    let hex = id.to_string();
    Some(v8::String::new_from_one_byte(scope, hex.as_bytes(), v8::NewStringType::Normal)?.into())
}

/// Creates an internalized string, for texts with few distinct values.
fn constant<'s>(scope: &v8::PinScope<'s, '_>, text: &str) -> Made<v8::Local<'s, v8::Value>> {
    Some(
        v8::String::new_from_one_byte(scope, text.as_bytes(), v8::NewStringType::Internalized)?
            .into(),
    )
}
