//! Runs a guest inside an isolate: links its modules, calls its entry, and delivers results of
//! operations.

use deno_core::v8;
use v8::script_compiler::{self, CachedData, CompileOptions, NoCacheReason, Source};

use crate::exception::{self, SyntaxProblem};
use crate::frame::Resident;
use crate::microtasks::Microtasks;
use crate::operations::{Current, Made, text, throw_type_error, write_answer};
use crate::program::{BUILT_IN, File};
use crate::snapshot::PRELUDE_DATA;

/// A scope that catches exceptions.
type Catching<'a, 's, 'o, 'i> = v8::PinnedRef<'a, v8::TryCatch<'s, 'o, v8::HandleScope<'i>>>;

/// The state of a guest at the end of a turn.
pub(crate) enum State {
    /// The guest waits for results of operations.
    Waiting,
    /// The entry has finished.
    Done,
    /// The guest threw an exception, rendered as this text.
    Threw(String),
    /// The guest waits, but no operation is pending.
    Stalled,
    /// V8 terminated the guest on request.
    Stopped,
}

/// Fresh globals, which no guest has used.
pub(crate) struct Globals {
    context: v8::Global<v8::Context>,
    microtasks: Microtasks,
    start: v8::Global<v8::Function>,
    exports: v8::Global<v8::Object>,
}

impl Globals {
    /// Creates globals. `None` if V8 was stopped.
    pub(crate) fn new(isolate: &mut v8::Isolate, dynamic_code: bool) -> Made<Self> {
        let microtasks = Microtasks::new(isolate)?;
        let queue = microtasks.as_ptr().as_ptr();
        v8::scope!(let scope, isolate);
        let options =
            v8::ContextOptions { microtask_queue: Some(queue), ..v8::ContextOptions::default() };
        let context = v8::Context::new(scope, options);
        context.set_allow_generation_from_strings(dynamic_code);
        let scope = &mut v8::ContextScope::new(scope, context);
        v8::tc_scope!(let scope, scope);
        let prelude = scope.get_context_data_from_snapshot_once::<v8::Object>(PRELUDE_DATA).ok()?;
        let begin = v8::Local::<v8::Function>::try_from(get(scope, prelude, "begin")?).ok()?;
        let start = v8::Local::<v8::Function>::try_from(get(scope, prelude, "start")?).ok()?;
        let exports = v8::Local::<v8::Object>::try_from(get(scope, prelude, "exports")?).ok()?;
        let nothing = v8::undefined(scope).into();
        begin.call(scope, nothing, &[])?;
        let (start, exports) = (v8::Global::new(scope, start), v8::Global::new(scope, exports));
        Some(Self { context: v8::Global::new(scope, context), microtasks, start, exports })
    }
}

/// Links the modules of the guest that has the turn and calls its entry, in `globals`.
pub(crate) fn begin(isolate: &mut v8::Isolate, current: &Current, globals: Globals) -> State {
    let Globals { context, microtasks, start, exports } = globals;
    v8::scope!(let scope, isolate);
    let local = v8::Local::new(scope, &context);
    let scope = &mut v8::ContextScope::new(scope, local);
    with(current, |resident| {
        resident.context = Some(context);
        resident.microtasks = Some(microtasks);
    });
    v8::tc_scope!(let scope, scope);
    let (start, exports) = (v8::Local::new(scope, start), v8::Local::new(scope, exports));
    match call_entry(scope, current, start, exports) {
        Some(main) => {
            let main = v8::Global::new(scope, main);
            with(current, |resident| resident.main = Some(main));
            proceed(scope, current)
        }
        None => threw(scope, current),
    }
}

/// Delivers the results that have arrived for the guest that has the turn.
pub(crate) fn go_on(isolate: &mut v8::Isolate, current: &Current) -> State {
    let Some(context) = with(current, |resident| resident.context.clone()).flatten() else {
        return State::Stopped;
    };
    v8::scope!(let scope, isolate);
    let context = v8::Local::new(scope, &context);
    let scope = &mut v8::ContextScope::new(scope, context);
    v8::tc_scope!(let scope, scope);
    proceed(scope, current)
}

fn proceed(scope: &mut Catching<'_, '_, '_, '_>, current: &Current) -> State {
    run_microtasks(scope, current);
    loop {
        if scope.is_execution_terminating() || scope.has_terminated() {
            return State::Stopped;
        }
        // The guest is examined after each result, so that it does not matter whether others have
        // arrived by then.
        match examine(scope, current) {
            State::Waiting => {}
            state => return state,
        }
        match deliver_next(scope, current) {
            Some(true) => run_microtasks(scope, current),
            Some(false) => return State::Waiting,
            None => return State::Stopped,
        }
    }
}

/// Settles the promise of the next result. Returns whether there was one.
fn deliver_next(scope: &mut v8::PinScope<'_, '_>, current: &Current) -> Made<bool> {
    let Some((resolver, answer)) = with(current, |resident| resident.conversation.next_answer())?
    else {
        return Some(false);
    };
    v8::scope!(let scope, scope);
    let resolver = v8::Local::new(scope, resolver);
    with(current, |resident| resident.frame.session.told(&answer));
    match write_answer(scope, answer)? {
        Ok(value) => resolver.resolve(scope, value)?,
        Err(failure) => resolver.reject(scope, failure)?,
    };
    Some(true)
}

fn run_microtasks(scope: &mut v8::PinScope<'_, '_>, current: &Current) {
    if let Some(queue) =
        with(current, |resident| resident.microtasks.as_ref().map(Microtasks::as_ptr)).flatten()
    {
        // SAFETY: the frame owns the queue, and is not dropped while it has the turn.
        unsafe { queue.as_ref() }.perform_checkpoint(scope);
    }
}

/// Returns whether the guest waits, has finished or has failed.
fn examine(scope: &mut v8::PinScope<'_, '_>, current: &Current) -> State {
    let Some(main) = with(current, |resident| resident.main.clone()).flatten() else {
        return State::Stopped;
    };
    let main = v8::Local::new(scope, main);
    if main.state() == v8::PromiseState::Rejected {
        let reason = main.result(scope);
        return threw_this(scope, current, reason);
    }
    // An unhandled rejection would be lost otherwise.
    if let Some((_, reason)) =
        with(current, |resident| resident.unhandled.first().cloned()).flatten()
    {
        let reason = v8::Local::new(scope, reason);
        return threw_this(scope, current, reason);
    }
    if main.state() == v8::PromiseState::Fulfilled {
        return State::Done;
    }
    match with(current, |resident| resident.conversation.is_over()) {
        Some(false) => State::Waiting,
        _ => State::Stalled,
    }
}

fn threw(scope: &mut Catching<'_, '_, '_, '_>, current: &Current) -> State {
    if scope.has_terminated() || scope.is_execution_terminating() {
        return State::Stopped;
    }
    match scope.exception() {
        Some(exception) => {
            scope.reset();
            threw_this(scope, current, exception)
        }
        None => State::Stopped,
    }
}

fn threw_this(
    scope: &mut v8::PinScope<'_, '_>,
    current: &Current,
    thrown: v8::Local<'_, v8::Value>,
) -> State {
    let Some(program) = with(current, |resident| resident.frame.program.clone()) else {
        return State::Stopped;
    };
    let words = exception::render(scope, thrown, &program);
    // Rendering may call into the guest.
    if scope.is_execution_terminating() { State::Stopped } else { State::Threw(words) }
}

fn with<T>(current: &Current, with: impl FnOnce(&mut Resident) -> T) -> Option<T> {
    current.borrow_mut().as_deref_mut().map(with)
}

fn call_entry<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    current: &Current,
    start: v8::Local<'s, v8::Function>,
    exports: v8::Local<'s, v8::Object>,
) -> Made<v8::Local<'s, v8::Promise>> {
    let (frame, program) =
        with(current, |resident| (resident.frame.clone(), resident.frame.program.clone()))?;
    for file in &program.files {
        let module = compile(scope, file)?;
        let module = v8::Global::new(scope, module);
        with(current, |resident| resident.modules.push(module));
    }
    let built_in = built_in(scope, exports)?;
    let kept = v8::Global::new(scope, built_in);
    let main = with(current, |resident| {
        resident.modules.push(kept);
        resident.modules.first().cloned()
    })??;
    let main = v8::Local::new(scope, main);
    main.instantiate_module(scope, resolve_import)?;
    // If the guest does not import the built-in module, it is not instantiated and has no slots for
    // its exports.
    if built_in.get_status() == v8::ModuleStatus::Instantiated {
        fill_built_in(scope, built_in, exports)?;
    }
    let evaluated = main.evaluate(scope)?;
    for (file, at) in program.files.iter().zip(0..) {
        keep_compiled(scope, current, file, at);
    }

    let job = &frame.job;
    let std = job.std.map(|id| id.to_string()).unwrap_or_default();
    let mut arguments = vec![evaluated, main.get_module_namespace()];
    for argument in [&*job.args.to_string(), &std, &job.salt, &job.image] {
        arguments.push(text(scope, argument)?);
    }
    let nothing = v8::undefined(scope).into();
    start.call(scope, nothing, &arguments)?.try_into().ok()
}

/// Returns the specifiers that the module imports. V8 parses the code and does not run it.
pub(crate) fn read_module(
    isolate: &mut v8::Isolate,
    path: &str,
    code: &str,
) -> Result<Vec<String>, SyntaxProblem> {
    v8::scope!(let scope, isolate);
    let context = v8::Context::new(scope, v8::ContextOptions::default());
    let scope = &mut v8::ContextScope::new(scope, context);
    v8::tc_scope!(let scope, scope);
    let module = match compile_text(scope, path, code) {
        Some(module) => module,
        None => {
            return Err(match scope.exception() {
                Some(thrown) => SyntaxProblem::of(scope, thrown),
                None => SyntaxProblem::whole("the file exceeds the maximum length of a V8 string"),
            });
        }
    };
    let requests = module.get_module_requests();
    let specifiers = (0..requests.length()).filter_map(|index| {
        let request = v8::Local::<v8::ModuleRequest>::try_from(requests.get(scope, index)?).ok()?;
        Some(request.get_specifier().to_rust_string_lossy(scope))
    });
    Ok(specifiers.collect())
}

fn compile_text<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    path: &str,
    code: &str,
) -> Made<v8::Local<'s, v8::Module>> {
    let code = v8::String::new(scope, code)?;
    let name = text(scope, path)?;
    script_compiler::compile_module(scope, &mut Source::new(code, Some(&origin(scope, name))))
}

fn origin<'s>(
    scope: &v8::PinScope<'s, '_>,
    name: v8::Local<'s, v8::Value>,
) -> v8::ScriptOrigin<'s> {
    v8::ScriptOrigin::new(scope, name, 0, 0, false, 0, None, false, false, true, None)
}

fn get<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    object: v8::Local<'s, v8::Object>,
    name: &str,
) -> Made<v8::Local<'s, v8::Value>> {
    let name = v8::String::new(scope, name)?;
    object.get(scope, name.into())
}

fn compile<'s>(scope: &mut v8::PinScope<'s, '_>, file: &File) -> Made<v8::Local<'s, v8::Module>> {
    let code = v8::String::new(scope, &file.script.code)?;
    let name = text(scope, &file.path)?;
    let origin = origin(scope, name);
    match file.compiled.get() {
        Some(compiled) => {
            let mut source =
                Source::new_with_cached_data(code, Some(&origin), CachedData::new(compiled));
            script_compiler::compile_module2(
                scope,
                &mut source,
                CompileOptions::ConsumeCodeCache,
                NoCacheReason::NoReason,
            )
        }
        None => script_compiler::compile_module(scope, &mut Source::new(code, Some(&origin))),
    }
}

/// Keeps V8's compiled form of a file, including functions that have run, for later contexts.
fn keep_compiled(scope: &mut v8::PinScope<'_, '_>, current: &Current, file: &File, at: usize) {
    if file.compiled.get().is_some() {
        return;
    }
    let Some(module) = with(current, |resident| resident.modules.get(at).cloned()).flatten() else {
        return;
    };
    let script = v8::Local::new(scope, module).get_unbound_module_script(scope);
    if let Some(compiled) = script.create_code_cache() {
        // Fails if another isolate was faster. Either result will do.
        let _ = file.compiled.set(compiled.to_vec());
    }
}

fn built_in<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    exports: v8::Local<'s, v8::Object>,
) -> Made<v8::Local<'s, v8::Module>> {
    let name = v8::String::new(scope, BUILT_IN)?;
    let names = export_names(scope, exports)?;
    Some(v8::Module::create_synthetic_module(scope, name, &names, evaluate_built_in))
}

fn export_names<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    exports: v8::Local<'s, v8::Object>,
) -> Made<Vec<v8::Local<'s, v8::String>>> {
    let names = exports.get_own_property_names(scope, v8::GetPropertyNamesArgs::default())?;
    (0..names.length()).map(|at| names.get_index(scope, at)?.try_into().ok()).collect()
}

fn fill_built_in<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    module: v8::Local<'s, v8::Module>,
    exports: v8::Local<'s, v8::Object>,
) -> Made<()> {
    for name in export_names(scope, exports)? {
        let value = exports.get(scope, name.into())?;
        module.set_synthetic_module_export(scope, name, value)?;
    }
    Some(())
}

/// Does nothing: the exports are set before any module is evaluated.
fn evaluate_built_in<'s>(
    context: v8::Local<'s, v8::Context>,
    _: v8::Local<'s, v8::Module>,
) -> Made<v8::Local<'s, v8::Value>> {
    v8::callback_scope!(unsafe scope, context);
    let resolver = v8::PromiseResolver::new(scope)?;
    let nothing = v8::undefined(scope).into();
    resolver.resolve(scope, nothing)?;
    Some(resolver.get_promise(scope).into())
}

fn resolve_import<'s>(
    context: v8::Local<'s, v8::Context>,
    specifier: v8::Local<'s, v8::String>,
    _: v8::Local<'s, v8::FixedArray>,
    referrer: v8::Local<'s, v8::Module>,
) -> Made<v8::Local<'s, v8::Module>> {
    v8::callback_scope!(unsafe scope, context);
    let specifier = specifier.to_rust_string_lossy(scope);
    let current = scope.get_slot::<Current>()?.clone();
    let module = with(&current, |resident| {
        let at = resident.modules.iter().position(|module| *module == referrer)?;
        let target = *resident.frame.program.files.get(at)?.imports.get(&specifier)?;
        resident.modules.get(target).cloned()
    });
    match module.flatten() {
        Some(module) => Some(v8::Local::new(scope, module)),
        None => {
            throw_type_error(scope, &format!("the module cannot import {specifier:?}"));
            None
        }
    }
}

/// Rejects `import()`, which could load unchecked code, or load it at a time that depends on other
/// guests.
pub(crate) fn refuse_dynamic_import<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    _: v8::Local<'s, v8::Data>,
    _: v8::Local<'s, v8::Value>,
    _: v8::Local<'s, v8::String>,
    _: v8::Local<'s, v8::FixedArray>,
) -> Made<v8::Local<'s, v8::Promise>> {
    let resolver = v8::PromiseResolver::new(scope)?;
    let message = v8::String::new(scope, "import() is not available; use static imports")?;
    let error = v8::Exception::type_error(scope, message);
    resolver.reject(scope, error)?;
    Some(resolver.get_promise(scope))
}

/// Keeps track of rejected promises without a handler.
pub(crate) unsafe extern "C" fn promise_rejected(message: v8::PromiseRejectMessage<'_>) {
    v8::callback_scope!(unsafe scope, &message);
    let Some(current) = scope.get_slot::<Current>().cloned() else { return };
    let promise = v8::Global::new(scope, message.get_promise());
    match message.get_event() {
        v8::PromiseRejectEvent::PromiseRejectWithNoHandler => {
            let Some(reason) = message.get_value() else { return };
            let reason = v8::Global::new(scope, reason);
            with(&current, |resident| resident.unhandled.push((promise, reason)));
        }
        v8::PromiseRejectEvent::PromiseHandlerAddedAfterReject => {
            with(&current, |resident| {
                resident.unhandled.retain(|(rejected, _)| *rejected != promise)
            });
        }
        _ => {}
    }
}
