//! A runtime's description does not change.

use std::sync::Arc;

use super::RuntimeFixture;
use super::setup::Setup;
use crate::check::{Step, ensure, ensure_eq};
use crate::program::Program;

/// > Returns the host image that identifies this runtime. Every call returns the same one.
///
/// Compares the host images before and after a job, and that of a second instance.
pub(super) async fn the_host_image_is_constant(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(Arc::clone(&fixture));
    let (name, id) = {
        let image = setup.runtime.host_image();
        (image.name().to_owned(), image.id())
    };
    ensure(!name.is_empty(), "the host image to have a name", || "an empty name".to_owned())?;
    ensure_eq("the host image hash on a second call", setup.runtime.host_image().id(), id)?;
    if fixture.module(Program::Echo).is_some() {
        setup.echo("the host image was read").await?;
        ensure_eq("the host image hash after a job", setup.runtime.host_image().id(), id)?;
    }
    let second = fixture.runtime();
    ensure_eq("the host image hash of a second instance", second.host_image().id(), id)?;
    ensure_eq("the host image's name in a second instance", second.host_image().name(), &name)
}

/// > Returns what this runtime supports. Every call returns the same value.
///
/// Compares the capabilities before and after a job, and those of a second instance. The fixture's
/// modules must be of a kind that the runtime supports.
pub(super) async fn capabilities_are_constant(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(Arc::clone(&fixture));
    let capabilities = setup.runtime.capabilities();
    ensure(
        capabilities.blob_modules || capabilities.tree_modules || capabilities.containers,
        "the runtime to support some kind of code",
        || format!("{capabilities:?}"),
    )?;
    for program in Program::ALL {
        let Some(module) = fixture.module(program) else { continue };
        let kind = module.kind();
        ensure(
            capabilities.accepts(kind),
            format!("the runtime to support a {kind} as a module, as that of `{program}` is"),
            || format!("{capabilities:?}"),
        )?;
    }
    ensure_eq("the capabilities on a second call", setup.runtime.capabilities(), capabilities)?;
    if fixture.module(Program::Echo).is_some() {
        setup.echo("the capabilities were read").await?;
        ensure_eq("the capabilities after a job", setup.runtime.capabilities(), capabilities)?;
    }
    let second = fixture.runtime().capabilities();
    ensure_eq("the capabilities of a second instance", second, capabilities)
}
