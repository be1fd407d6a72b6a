//! Guests that fail or misbehave cause errors, and other guests are not affected.

use std::sync::Arc;

use manifold_runtime_api::{Call, Error, ErrorKind, Job, ObjectRef, Reason, Status, TestHost};
use tokio::sync::oneshot;

use super::RuntimeFixture;
use super::setup::Setup;
use crate::check::{Step, Stop, ensure, ensure_eq, short, skip, violation};
use crate::content::unknown_id;
use crate::program::Program;

/// > The guest ended its job with an error message.
///
/// `Program::Fail` ends with [`Reason::GuestFailed`], whose message contains the guest's own.
pub(super) async fn a_guest_fails_with_its_own_words(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    for words in ["no such thing", "größer als erlaubt"] {
        let job = setup.job(Program::Fail, &[("message", setup.blob(words))])?;
        let error = setup.error("Program::Fail", job).await?;
        let says_so = matches!(
            error.reason(),
            Reason::GuestFailed { message } if message.contains(words)
        );
        let expected = format!("Reason::GuestFailed with a message that contains {words:?}");
        ensure(says_so, expected, || short(&error))?;
    }
    setup.echo("Program::Fail").await
}

/// Runs a guest that has to end with an error of its own, in any form.
async fn is_the_guests_fault(fixture: Arc<dyn RuntimeFixture>, program: Program) -> Step {
    let setup = Setup::new(fixture);
    for _ in 0..3 {
        let what = format!("Program::{program:?}");
        let error = setup.error(&what, setup.job(program, &[])?).await?;
        ensure(
            error.reason().kind() == ErrorKind::Guest,
            format!("{what} to end with an error of the kind ErrorKind::Guest"),
            || short(&error),
        )?;
        setup.echo(&what).await?;
    }
    Ok(())
}

/// > A hostile guest causes an error. It can neither terminate nor block the process.
///
/// `Program::Crash` ends with an error of the guest's, and other jobs run afterwards.
pub(super) async fn a_crash_is_an_error(fixture: Arc<dyn RuntimeFixture>) -> Step {
    is_the_guests_fault(fixture, Program::Crash).await
}

/// > A hostile guest causes an error. It can neither terminate nor block the process.
///
/// `Program::Silent` ends with an error of the guest's, for example [`Reason::NoOutcome`].
pub(super) async fn no_outcome_is_an_error(fixture: Arc<dyn RuntimeFixture>) -> Step {
    is_the_guests_fault(fixture, Program::Silent).await
}

/// > A hostile guest causes an error. It can neither terminate nor block the process.
///
/// Runs programs without their arguments, with an argument of the wrong form, and with a tree of
/// arguments that does not exist. All end with an error.
pub(super) async fn missing_arguments_are_errors(fixture: Arc<dyn RuntimeFixture>) -> Step {
    const WITH_ARGUMENTS: [Program; 9] = [
        Program::Echo,
        Program::Put,
        Program::List,
        Program::Measure,
        Program::Part,
        Program::Recurse,
        Program::Relay,
        Program::FanOut,
        Program::Log,
    ];
    let setup = Setup::new(fixture);
    for program in WITH_ARGUMENTS {
        if setup.fixture.module(program).is_some() {
            let what = format!("Program::{program:?} without arguments");
            setup.error(&what, setup.job(program, &[])?).await?;
        }
    }
    for (program, name) in [(Program::Recurse, "depth"), (Program::Flood, "bytes")] {
        if setup.fixture.module(program).is_some() {
            let what = format!("Program::{program:?} with an argument that is not a number");
            let job = setup.job(program, &[(name, setup.blob("many"))])?;
            setup.error(&what, job).await?;
        }
    }
    let echo = setup.job(Program::Echo, &[])?;
    let job = Job::new(echo.request, Arc::clone(&echo.image), echo.code, unknown_id());
    let error = setup.error("Program::Echo with an unknown tree of arguments", job).await?;
    let expected = "the error of the host as its cause, for a tree of arguments that is missing";
    ensure(error.missing_object() == Some(unknown_id()), expected, || short(&error))?;
    setup.echo("programs without arguments").await
}

const NESTED_WORDS: &str = "the words of the nested guest";

/// A host with an image that fails.
fn failing() -> TestHost {
    TestHost::new().image("failing", |_: Call| async { Err(Error::guest_failed(NESTED_WORDS)) })
}

/// > If any other operation fails, the guest receives the error and continues.
///
/// `Program::Catch` catches the failure of a nested run, and returns the outcome of one that
/// succeeds.
pub(super) async fn errors_of_the_host_reach_the_guest(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let host = failing().image("same", |call: Call| async move { Ok(ObjectRef::tree(call.args)) });
    let setup = Setup::with_host(fixture, host);
    let args = setup.tree(&[])?;
    let job =
        |image: &str| setup.job(Program::Catch, &[("image", setup.blob(image)), ("in", args)]);
    let text = setup.text("Program::Catch of a run that fails", job("failing")?).await?;
    ensure_eq("the outcome of Program::Catch", text.as_str(), "caught")?;
    let (outcome, _) = setup.outcome("Program::Catch", job("same")?).await?;
    ensure_eq("the outcome of Program::Catch for a run that succeeds", outcome, args)
}

/// > If the job fails later, the last such error becomes its cause, so that a guest's panic does
/// > not hide the reason.
///
/// The error chain of a job contains the failure of a nested run, a missing object, and a transient
/// failure to store.
pub(super) async fn errors_of_the_host_remain_as_causes(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let mut setup = Setup::with_host(fixture, failing());
    let args = setup.tree(&[])?;
    let job = setup.job(Program::Relay, &[("image", setup.blob("failing")), ("in", args)])?;
    let error = setup.error("Program::Relay of a run that fails", job).await?;
    ensure(
        error.chain().any(|cause| {
            matches!(cause.reason(), Reason::GuestFailed { message } if message == NESTED_WORDS)
        }),
        "the error of the nested run in the chain of causes",
        || short(&error),
    )?;
    if setup.fixture.module(Program::Measure).is_some() {
        let unknown = ObjectRef::blob(unknown_id());
        let job = setup.job(Program::Measure, &[("in", unknown)])?;
        let error = setup.error("Program::Measure of a missing object", job).await?;
        let expected = "the missing object in the chain of causes";
        ensure(error.missing_object() == Some(unknown.id), expected, || short(&error))?;
    }
    if setup.fixture.module(Program::Put).is_some() {
        let problem = "the check refuses to store objects".to_owned();
        let status = Status::Transient;
        setup.refusal = Some(Error::new(Reason::StoreFailed { problem, status }));
        let job = setup.job(Program::Put, &[("in", setup.blob("content"))])?;
        let error = setup.error("Program::Put with a host that cannot store", job).await?;
        let is_cause =
            error.chain().any(|cause| matches!(cause.reason(), Reason::StoreFailed { .. }));
        let expected = "the failure of the store in the chain of causes, and Status::Transient";
        ensure(is_cause && error.status() == status, expected, || {
            format!("{:?}: {}", error.status(), short(&error))
        })?;
    }
    setup.echo("errors of the host").await
}

/// > A hostile guest causes an error. It can neither terminate nor block the process.
///
/// Runs `Program::Spin` and then `Program::Echo` in a tokio runtime with a single thread, which a
/// computing guest must not block.
pub(super) async fn a_computing_guest_does_not_block_others(
    fixture: Arc<dyn RuntimeFixture>,
) -> Step {
    let patience = fixture.patience();
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let result = on_one_thread(fixture);
        // The check may have given up already.
        let _ = sender.send(result);
    });
    match tokio::time::timeout(patience * 3, receiver).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(violation("the check to end", "its thread panicked")),
        Err(_) => Err(violation(
            "a guest that computes to leave the thread of its future to other tasks now and then",
            format!("the thread was blocked for {:?}", patience * 3),
        )),
    }
}

fn on_one_thread(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let executor =
        executor.map_err(|error| violation("a tokio runtime", format!("an error: {error}")))?;
    let result = executor.block_on(async {
        let setup = Setup::new(fixture);
        let limits = setup.patient_limits();
        let running = setup.start(setup.job(Program::Spin, &[])?.limits(limits));
        running.started().await;
        setup.echo("another guest began to compute").await?;
        running.cancel("a computing guest").await
    });
    executor.shutdown_background();
    result
}

/// > A hostile guest causes an error. It can neither terminate nor block the process.
///
/// Runs every program that fails or breaches a limit on one instance, twice. `Program::Echo` has to
/// run after each.
pub(super) async fn an_instance_survives_hostile_guests(fixture: Arc<dyn RuntimeFixture>) -> Step {
    const HOSTILE: [Program; 10] = [
        Program::Fail,
        Program::Crash,
        Program::Silent,
        Program::Spin,
        Program::SpinAndCatch,
        Program::Hog,
        Program::HogAndCatch,
        Program::Flood,
        Program::Measure,
        Program::Log,
    ];
    const LIMIT: u64 = 64 << 10;
    let setup = Setup::new(fixture);
    let large = setup.blob("x".repeat(1 << 20));
    let args = [
        ("in", large),
        ("message", setup.blob("hostile")),
        ("bytes", setup.blob((1 << 20).to_string())),
    ];
    let mut ran = false;
    for program in HOSTILE.into_iter().chain(HOSTILE) {
        let job = match setup.job(program, &args) {
            Ok(job) => job,
            Err(Stop::Skipped(_)) => continue,
            Err(stop) => return Err(stop),
        };
        let limits = setup
            .patient_limits()
            .compute_time(setup.fixture.compute_time())
            .memory_bytes(setup.fixture.memory_bytes())
            .guest_request_bytes(LIMIT)
            .response_bytes(LIMIT)
            .log_bytes(100);
        setup.error(&format!("Program::{program:?} under low limits"), job.limits(limits)).await?;
        setup.echo(&format!("Program::{program:?}")).await?;
        ran = true;
    }
    if ran { Ok(()) } else { skip("the fixture has no module for a hostile program") }
}
