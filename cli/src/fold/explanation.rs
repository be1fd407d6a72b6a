//! Why a fold ran what it ran.

use std::sync::Arc;

use manifold_dispatcher::{ObjectSource, Store};
use manifold_runtime_api::ObjectRef;

use super::Folded;
use crate::args::Fold;
use crate::error::CliError;
use crate::explain::{Names, differences, nearest, reached, store_trees};
use crate::input::Input;
use crate::session::Session;

/// How many reasons are named.
const REASONS: usize = 5;

/// Stores the trees of a directory that was folded, so that a later fold can be compared with it.
/// Returns the explanation of this one, if the user wants one.
pub(super) fn after(
    session: &Session,
    store: &Arc<dyn Store>,
    options: &Fold,
    input: &Input,
    fold: &Folded,
) -> Result<String, CliError> {
    let ran = fold.repeats.first().map_or(0, |first| first.runs);
    let keeps = options.using.keeps_provenance();
    // The trees of a revision are in its repository.
    if keeps && options.rev.is_none() && ran > 0 {
        keep_trees(session, store, input.root)?;
    }
    // JSON has no explanation.
    if !options.explain || options.json {
        return Ok(String::new());
    }
    if !keeps {
        return Ok("\nnothing to explain: no record of requests is kept\n".to_owned());
    }
    if ran == 0 {
        return Ok("\nno frame ran: the result was remembered\n".to_owned());
    }
    let dispatcher = &session.dispatcher;
    let all = dispatcher.provenances()?;
    let total = reached(fold.completion.request, &all).len();
    let counted = format!("\n{ran} of {total} frames ran");
    let Some(this) = dispatcher.provenance(fold.completion.request)? else {
        return Ok(format!("{counted}; the record of the request is missing\n"));
    };
    let names = Names::read(dispatcher, &[session.std, session.standard]);
    let Some(before) = nearest(dispatcher, &this, &all, &names) else {
        return Ok(format!("{counted}, because no similar fold is remembered\n"));
    };
    let reasons = differences(dispatcher, before, &this, &names)?;
    let shown: Vec<_> = reasons.iter().take(REASONS).map(|reason| short(reason)).collect();
    let rest = match reasons.len().saturating_sub(REASONS) {
        0 => String::new(),
        rest => format!(", and {rest} more (manifold explain {})", this.id),
    };
    Ok(match shown.is_empty() {
        true => format!("{counted}, although nothing has changed: they were not remembered\n"),
        false => format!("{counted}, because {}{rest}\n", shown.join(", ")),
    })
}

/// The input is what a fold is about, so its name is left out.
fn short(reason: &str) -> &str {
    reason.strip_prefix("in/").unwrap_or(reason)
}

fn keep_trees(session: &Session, store: &Arc<dyn Store>, root: ObjectRef) -> Result<(), CliError> {
    let is_stored = |id| store.kind(id).is_ok_and(|kind| kind.is_some());
    store_trees(&session.dispatcher, root, is_stored, |tree| {
        store.write(tree)?;
        Ok(())
    })
}
