//! `manifold cat`: prints an object.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use manifold_dispatcher::ObjectSource;
use manifold_runtime_api::{ObjectId, ObjectKind, ObjectRef};

use crate::args::Cat;
use crate::error::CliError;
use crate::outcome;
use crate::report;
use crate::repository::Repository;
use crate::session::{Options, Session};

pub(crate) fn cat(options: &Cat) -> Result<(), CliError> {
    let id = ObjectId::from_hex(&options.id)
        .map_err(|source| CliError::InvalidId { id: options.id.clone(), source })?;
    let around = options.repo.as_deref().unwrap_or(Path::new("."));
    let sources: Vec<Arc<dyn ObjectSource>> = match Repository::for_reading(around) {
        Ok(repository) => vec![Arc::new(repository.objects()?)],
        // Without a repository, the store and the standard images are still there to read.
        Err(CliError::NotARepository { .. }) if options.repo.is_none() => Vec::new(),
        Err(error) => return Err(error),
    };
    let session = Session::new(options.store.open_to_look()?, sources, &Options::default())?;
    let object = session.dispatcher.read(id)?;
    if options.lines && object.kind == ObjectKind::Tree {
        return print_lines(&session, ObjectRef::tree(id));
    }
    report::object(&object)
}

/// Prints the lines of all files in a tree.
fn print_lines(session: &Session, tree: ObjectRef) -> Result<(), CliError> {
    let mut result = Ok(());
    let _ = outcome::lines(&session.dispatcher, tree, &mut |line| {
        result = report::print(format!("{line}\n").as_bytes());
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result
}
