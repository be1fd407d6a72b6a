//! Modules are prepared, and those that cannot be run cause errors.

use std::sync::Arc;

use manifold_runtime_api::{Code, Error, ImageRef, Limit, Limits, Reason, Runtime};

use super::RuntimeFixture;
use super::setup::Setup;
use super::spy::SpyHost;
use crate::check::{Step, ensure, short, skip, violation};
use crate::module::Module;
use crate::program::Program;

/// Prepares `code`. Returns its error if there is one: a runtime need not prepare anything.
async fn prepare(setup: &Setup, what: &str, code: &Code, limits: &Limits) -> Step<Option<Error>> {
    let patience = setup.fixture.patience();
    let host = SpyHost::reading(setup.host.clone());
    let prepared = setup.runtime.prepare(code, limits, &host);
    match tokio::time::timeout(patience, prepared).await {
        Ok(result) => Ok(result.err()),
        Err(_) => Err(violation(
            format!("`Runtime::prepare` of {what} to end within {patience:?}"),
            "it still runs",
        )),
    }
}

/// Ensures that a job of `code` fails with an error for which `is_right` holds, and that preparing
/// `code` succeeds or fails in the same way. `expected` describes the error.
async fn is_refused(
    setup: &Setup,
    what: &str,
    code: Code,
    limits: Limits,
    expected: &str,
    is_right: impl Fn(&Error) -> bool,
) -> Step {
    let prepared = code.clone();
    let job = setup.host.job(code, [("in", setup.blob("hello"))]);
    let job = job.map_err(|error| violation("a valid tree of arguments", short(&error)))?;
    let error = setup.error(&format!("a job of {what}"), job.limits(limits)).await?;
    ensure(is_right(&error), format!("a job of {what} to fail with {expected}"), || short(&error))?;
    if let Some(error) = prepare(setup, what, &prepared, &limits).await? {
        let expected =
            format!("`Runtime::prepare` of {what} to succeed or to fail with {expected}");
        ensure(is_right(&error), expected, || short(&error))?;
    }
    Ok(())
}

/// > Prepares `code` so that a later [`run`](Runtime::run) starts faster.
///
/// Prepares a module repeatedly and many times at once, with a host that only reads objects, as the
/// dispatcher's does. The module runs before and after that.
pub(super) async fn a_prepared_module_runs(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    let code = setup.code(Program::Echo)?;
    let limits = Limits::default();
    let what = "the module of Program::Echo";
    let prepare = || async {
        match prepare(&setup, what, &code, &limits).await? {
            Some(error) => Err(violation("`Runtime::prepare` to succeed", short(&error))),
            None => Ok(()),
        }
    };
    prepare().await?;
    setup.echo("its module was prepared").await?;
    tokio::try_join!(prepare(), prepare(), prepare(), prepare())?;
    setup.echo("its module was prepared again").await
}

/// > [`Reason::BadModule`] if the module cannot be loaded, so that no job could run it.
///
/// A job of [`RuntimeFixture::unloadable_module`] fails so, and `prepare` does if it loads modules.
pub(super) async fn an_unloadable_module_is_an_error(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    let Some(module) = setup.fixture.unloadable_module() else {
        return skip("the fixture has no module that cannot be loaded");
    };
    for _ in 0..2 {
        let code = setup.store(&module)?;
        let id = code.module().map(|module| module.id);
        let expected = "Reason::BadModule, which names the module";
        let is_right = |error: &Error| match error.reason() {
            Reason::BadModule { module, .. } => Some(*module) == id,
            _ => false,
        };
        let what = "a module that cannot be loaded";
        is_refused(&setup, what, code, Limits::default(), expected, is_right).await?;
        setup.echo("a module that cannot be loaded").await?;
    }
    Ok(())
}

/// > The error that `host` returns if the module cannot be read.
///
/// A job whose module does not exist fails with [`Reason::MissingObject`] in its chain of causes.
/// The same job succeeds once the module exists.
pub(super) async fn a_missing_module_is_an_error(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let code = Setup::new(Arc::clone(&fixture)).code(Program::Echo)?;
    let id = code.module().map(|module| module.id);
    let setup = Setup::new(fixture);
    let expected = "Reason::MissingObject, which names the module, as a cause";
    is_refused(
        &setup,
        "a module that does not exist",
        code,
        Limits::default(),
        expected,
        |error| error.missing_object() == id,
    )
    .await?;
    setup.echo("its module was stored").await
}

/// > Bounds on one frame. Exceeding one ends the frame with [`Reason::LimitBreached`].
///
/// A job whose module is longer than its [`Limits::module_bytes`] fails so, on an instance that has
/// not loaded the module before. A job with a higher limit succeeds afterwards. Which files of a
/// tree count is up to the runtime, so the limit is a single byte there.
pub(super) async fn a_module_over_its_limit_is_an_error(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    let module = setup.module(Program::Echo)?;
    let bytes = match &module {
        Module::Blob(content) => (content.len() as u64).saturating_sub(1),
        Module::Tree(_) => 1,
    };
    let code = setup.store(&module)?;
    let limits = Limits::default().module_bytes(bytes);
    let expected = format!("Limit::Module of {bytes} bytes");
    is_refused(&setup, "a module over its limit", code, limits, &expected, |error| {
        match error.reason() {
            Reason::LimitBreached(Limit::Module { bytes: bound, found }) => {
                *bound == bytes && *found > bytes
            }
            _ => false,
        }
    })
    .await?;
    setup.echo("its module was over the limit of another job").await
}

/// > The kinds of jobs that a runtime supports.
///
/// A job of a kind that [`Runtime::capabilities`] excludes fails. A dispatcher does not start one.
pub(super) async fn unsupported_code_is_an_error(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    let capabilities = setup.runtime.capabilities();
    let blob = setup.blob("a module");
    let tree = setup.tree(&[("a module", blob)])?;
    let mut unsupported: Vec<Code> = [blob, tree]
        .into_iter()
        .filter(|module| !capabilities.accepts(module.kind))
        .map(Code::Module)
        .collect();
    if !capabilities.containers
        && let Ok(ImageRef::Docker(container)) =
            ImageRef::parse(&format!("docker://example@sha256:{}", "0".repeat(64)))
    {
        unsupported.push(Code::Hosted { host: container.clone(), module: blob });
        unsupported.push(Code::Container(container));
    }
    if unsupported.is_empty() {
        return skip("the runtime supports every kind of code");
    }
    for code in unsupported {
        let what = format!("code that the runtime does not support, {}", short(&code));
        is_refused(&setup, &what, code, Limits::default(), "any error", |_| true).await?;
    }
    setup.echo("code that the runtime does not support").await
}
