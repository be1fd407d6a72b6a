//! Runs a guest inside an isolate: calls its entry, delivers results of operations, and examines
//! whether it has finished.

pub(crate) mod globals;
pub(crate) mod microtasks;
pub(crate) mod modules;
pub(crate) mod rejections;

use deno_core::v8;

use crate::exception;
use crate::job::{Current, with};
use crate::operations::write_answer;
use crate::values::{Made, text};
use globals::Globals;
use manifold_runtime_api::{JobPhase, Report};
use microtasks::run_microtasks;

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

/// Links the modules of the guest that has the turn and calls its entry, in `globals`.
pub(crate) fn begin(isolate: &mut v8::Isolate, current: &Current, globals: Globals) -> State {
    let Globals { context, microtasks, start, exports } = globals;
    v8::scope!(let scope, isolate);
    let local = v8::Local::new(scope, &context);
    let scope = &mut v8::ContextScope::new(scope, local);
    with(current, |resident| {
        resident.frame.session.report(Report::Phase(JobPhase::Compute));
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

/// Evaluates the modules and calls the entry. Returns the promise for its result.
fn call_entry<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    current: &Current,
    start: v8::Local<'s, v8::Function>,
    exports: v8::Local<'s, v8::Object>,
) -> Made<v8::Local<'s, v8::Promise>> {
    let (frame, program) =
        with(current, |resident| (resident.frame.clone(), resident.frame.program.clone()))?;
    let main = modules::evaluate(scope, current, &program, exports)?;
    let job = &frame.job;
    let std = job.std.map(|id| id.to_string()).unwrap_or_default();
    let mut arguments = vec![main.evaluated, main.namespace];
    for argument in [&*job.args.to_string(), &std, &job.salt, &job.image] {
        arguments.push(text(scope, argument)?);
    }
    let nothing = v8::undefined(scope).into();
    start.call(scope, nothing, &arguments)?.try_into().ok()
}
