//! The snapshot from which every isolate, and every guest's globals in it, come.

use std::borrow::Cow;
use std::sync::OnceLock;

use deno_core::v8;
use manifold_runtime_api::{Error, Result};

use crate::{engine, operations};

/// The globals and the built-in module, as source. Part of the host image.
pub(crate) const PRELUDE: &str = include_str!("js/prelude.js");

/// What the prelude answered, in the data of every context: `{start, exports}`.
pub(crate) const PRELUDE_DATA: usize = 0;

/// The snapshot, made the first time that somebody wants it.
///
/// # Errors
/// `RuntimeFailed` when V8 cannot start, or does not take the prelude.
pub(crate) fn blob() -> Result<&'static [u8]> {
    static BLOB: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    engine::start()?;
    // V8 wants a stack of the usual size, and callers may have less.
    let make =
        || std::thread::spawn(make).join().unwrap_or_else(|_| Err("making it panicked".to_owned()));
    let blob = BLOB.get_or_init(make);
    blob.as_deref()
        .map_err(|problem| Error::runtime(format!("V8's snapshot cannot be made: {problem}")))
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
    // Without this the creator would end the process when it is dropped.
    let blob = isolate.create_blob(v8::FunctionCodeHandling::Keep);
    run?;
    Ok(blob.ok_or("V8 made none")?.to_vec())
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
