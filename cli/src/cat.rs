//! `manifold cat`: prints an object.

use std::ops::ControlFlow;

use manifold_runtime_api::{ObjectKind, ObjectRef};

use crate::args::Cat;
use crate::error::CliError;
use crate::objects;
use crate::outcome;
use crate::report;
use crate::session::Session;

pub(crate) fn cat(options: &Cat) -> Result<(), CliError> {
    let session = options.reading.session()?;
    let named = objects::find(&session.dispatcher, &options.id)?;
    let Some(found) = named.object() else {
        // The commit of a submodule, which is in another repository.
        return report::print(format!("{}\n", named.id).as_bytes());
    };
    if options.lines && found.kind == ObjectKind::Tree {
        return print_lines(&session, found);
    }
    report::object(&session.dispatcher.read(found.id)?)
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
