//! How a script talks to its host, and how it ends.

use manifold_runtime_api::abi::{Answer, Failure, Operation};
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    Call, Error, Limit, Limits, ObjectId, ObjectRef, Reason, Result, TreeEntry,
};
use rhai::{AST, Array, Blob, Dynamic, Engine, EvalAltResult, Map, Position};

use crate::fiber::{self, Request, STACK_BYTES};

/// The result of a host function. A script can catch the error.
pub(crate) type Called<T> = std::result::Result<T, Box<EvalAltResult>>;

/// Returns the argument called `name`.
pub(crate) fn argument(args: ObjectRef, name: &str) -> Called<ObjectRef> {
    let Answer::Tree(tree) = ask(Operation::Tree(args.id))? else { return unexpected() };
    let entry = tree.get(name).and_then(object_of);
    entry.ok_or_else(|| format!("there is no argument `{name}`").into())
}

/// Returns the size of a request as a guest would send it, in bytes.
pub(crate) fn request_bytes(operation: &Operation) -> u64 {
    const ID_BYTES: usize = 20;
    let call = |call: &Call| call.image.len() + ID_BYTES;
    let bytes = match operation {
        Operation::PutBlob(content) => content.len(),
        Operation::PutTree(entries) => entries.iter().map(|e| e.name.len() + ID_BYTES).sum(),
        Operation::Run(one) => call(one),
        Operation::RunMany(calls) => calls.iter().map(call).sum(),
        Operation::Log(text) | Operation::Fail(text) => text.len(),
        _ => ID_BYTES,
    };
    bytes as u64
}

/// Runs a script. Its value is the outcome of the job.
pub(crate) fn interpret(engine: &Engine, ast: &AST, limits: &Limits) -> Result<()> {
    let value = engine.eval_ast::<Dynamic>(ast).map_err(|error| explain(&error, limits))?;
    if value.is_unit() {
        // A guest without an outcome. The session says so.
        return Ok(());
    }
    let outcome = value.clone().try_cast::<ObjectRef>().ok_or_else(|| {
        let found = engine.map_type_name(value.type_name());
        Error::guest_failed(format!("the value of the script is of type {found}, not an object"))
    })?;
    fiber::suspend(Request::Operation(Operation::Out(outcome))).map(drop)
}

pub(crate) fn ask(operation: Operation) -> Called<Answer> {
    fiber::suspend(Request::Operation(operation)).map_err(thrown)
}

/// Returns an error as a script catches it: `#{message, kind, chain}`.
pub(crate) fn thrown(error: Error) -> Box<EvalAltResult> {
    let failure = Failure::from(&error);
    let chain: Array = failure.chain.into_iter().map(Dynamic::from).collect();
    let fields: [(&str, Dynamic); 3] =
        [("message", failure.error.into()), ("kind", failure.kind.into()), ("chain", chain.into())];
    let map: Map = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
    Box::new(EvalAltResult::ErrorRuntime(map.into(), Position::NONE))
}

/// Returns the job's error for an error that the script has not caught.
fn explain(error: &EvalAltResult, limits: &Limits) -> Error {
    match error.unwrap_inner() {
        EvalAltResult::ErrorRuntime(value, _) => {
            // What the script threw, or what a host function did.
            let message = value.as_map_ref().ok().and_then(|map| map.get("message").cloned());
            Error::guest_failed(message.as_ref().unwrap_or(value).to_string())
        }
        // rhai does not let a script catch these.
        EvalAltResult::ErrorDataTooLarge(..) | EvalAltResult::ErrorTooManyVariables(..) => {
            Limit::Memory { bytes: limits.memory_bytes }.into()
        }
        EvalAltResult::ErrorStackOverflow(..) => Limit::Stack { bytes: STACK_BYTES as u64 }.into(),
        _ => Error::new(Reason::Trapped { trap: error.to_string() }),
    }
}

pub(crate) fn stored(operation: Operation) -> Called<ObjectId> {
    match ask(operation)? {
        Answer::Stored(id) => Ok(id),
        _ => unexpected(),
    }
}

pub(crate) fn blob(answer: Answer) -> Called<Blob> {
    match answer {
        Answer::Blob(content) => Ok(content.to_vec()),
        _ => unexpected(),
    }
}

pub(crate) fn entry(entry: &TreeEntry) -> Dynamic {
    // A name that is not UTF-8 is a blob.
    let name = match entry.name.to_str() {
        Ok(name) => Dynamic::from(name.to_owned()),
        Err(_) => Dynamic::from_blob(entry.name.to_vec()),
    };
    let object = object_of(entry).map_or(Dynamic::UNIT, Dynamic::from);
    let fields = [("name", name), ("mode", entry.mode.to_string().into()), ("object", object)];
    Dynamic::from_map(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

fn object_of(entry: &TreeEntry) -> Option<ObjectRef> {
    Some(ObjectRef { kind: entry.mode.object_kind()?, id: entry.id })
}

pub(crate) fn object(value: Dynamic) -> Called<ObjectRef> {
    let found = value.type_name();
    value
        .try_cast()
        .ok_or_else(|| format!("expected an object, found a value of type {found}").into())
}

pub(crate) fn unexpected<T>() -> Called<T> {
    Err("the host returned an answer of another operation".into())
}
