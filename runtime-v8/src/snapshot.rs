//! The snapshot from which every isolate and every guest's globals are created.

use std::borrow::Cow;
use std::sync::OnceLock;

use deno_core::v8;
use manifold_runtime_api::{Error, Result};

use crate::{engine, operations};

/// The source of the globals and the built-in module. Its blob id is part of the host image.
pub(crate) const PRELUDE: &str = include_str!("js/prelude.js");

/// The index of the prelude's result, `{begin, start, exports}`, in the data of every context.
pub(crate) const PRELUDE_DATA: usize = 0;

/// Returns the snapshot, which is created on the first call.
///
/// # Errors
/// `RuntimeFailed` if V8 cannot start, or if the prelude fails.
pub(crate) fn blob() -> Result<&'static [u8]> {
    static BLOB: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    engine::start()?;
    // V8 needs a stack of the default size, and the caller's may be smaller.
    let make = || {
        std::thread::spawn(make)
            .join()
            .unwrap_or_else(|_| Err("the thread that creates it panicked".to_owned()))
    };
    let blob = BLOB.get_or_init(make);
    blob.as_deref()
        .map_err(|problem| Error::runtime(format!("cannot create the V8 snapshot: {problem}")))
}

fn make() -> Result<Vec<u8>, String> {
    let references = Cow::Owned(operations::external_references());
    let mut isolate = v8::Isolate::snapshot_creator(Some(references), None);
    let run = {
        v8::scope!(let scope, &mut isolate);
        let context = v8::Context::new(scope, v8::ContextOptions::default());
        let scope = &mut v8::ContextScope::new(scope, context);
        let run = run_prelude(scope);
        if let Ok(prelude) = run {
            scope.add_context_data(context, prelude);
        }
        scope.set_default_context(context);
        run.map(|_| ())
    };
    // Dropping the snapshot creator without this call ends the process.
    let blob = isolate.create_blob(v8::FunctionCodeHandling::Keep);
    run?;
    Ok(blob.ok_or("V8 returned no data")?.to_vec())
}

fn run_prelude<'s>(scope: &mut v8::PinScope<'s, '_>) -> Result<v8::Local<'s, v8::Object>, String> {
    v8::tc_scope!(let scope, scope);
    let answer = evaluate(scope);
    match answer {
        Some(answer) => Ok(answer),
        None => {
            let problem = scope.exception().map(|exception| exception.to_rust_string_lossy(scope));
            Err(problem.unwrap_or_else(|| "the prelude failed".to_owned()))
        }
    }
}

fn evaluate<'s>(scope: &mut v8::PinScope<'s, '_>) -> Option<v8::Local<'s, v8::Object>> {
    let source = v8::String::new(scope, PRELUDE)?;
    let script = v8::Script::compile(scope, source, None)?;
    let prelude: v8::Local<'_, v8::Function> = script.run(scope)?.try_into().ok()?;
    let native = operations::native_functions(scope)?;
    let nothing = v8::undefined(scope).into();
    prelude.call(scope, nothing, &[native.into()])?.to_object(scope)
}
