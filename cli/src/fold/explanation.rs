//! Why a fold ran what it ran.

use std::sync::Arc;

use manifold_dispatcher::{ObjectSource, Store};
use manifold_runtime_api::{ObjectId, ObjectRef};
use serde::Serialize;

use super::Folded;
use crate::args::Fold;
use crate::error::CliError;
use crate::explain::{Names, differences, nearest, reached, store_trees};
use crate::input::Input;
use crate::session::Session;

/// How many reasons are named.
const REASONS: usize = 5;

/// Why frames of a fold ran.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    /// The number of frames that ran, and that of the requests which the fold reaches.
    ran: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<usize>,
    /// The nearest fold before, if there is one.
    against: Option<String>,
    /// How this fold differs from that one.
    because: Vec<String>,
    #[serde(skip)]
    request: ObjectId,
    #[serde(skip)]
    problem: Option<&'static str>,
}

impl Explanation {
    /// Formats the explanation as a sentence.
    pub(crate) fn text(&self) -> String {
        let Self { ran, of, against, because, request, problem } = self;
        if let Some(problem) = problem {
            return (*problem).to_owned();
        }
        let counted = format!("{ran} of {} frames ran", of.unwrap_or_default());
        if against.is_none() {
            return format!("{counted}, because no similar fold is remembered");
        }
        if because.is_empty() {
            return format!("{counted}, although nothing has changed: they were not remembered");
        }
        let shown: Vec<_> = because.iter().take(REASONS).map(|reason| short(reason)).collect();
        let rest = match because.len().saturating_sub(REASONS) {
            0 => String::new(),
            rest => format!(", and {rest} more (manifold explain {request})"),
        };
        format!("{counted}, because {}{rest}", shown.join(", "))
    }
}

/// Stores the trees of a directory that was folded, so that a later fold can be compared with it.
/// Returns the explanation of this one, if the user wants one.
pub(super) fn after(
    session: &Session,
    store: &Arc<dyn Store>,
    options: &Fold,
    input: &Input,
    fold: &Folded,
) -> Result<Option<Explanation>, CliError> {
    let ran = fold.repeats.first().map_or(0, |first| first.runs);
    let keeps = options.using.keeps_provenance();
    // The trees of a revision are in its repository.
    if keeps && options.rev.is_none() && ran > 0 {
        keep_trees(session, store, input.root)?;
    }
    if !options.explain {
        return Ok(None);
    }
    let dispatcher = &session.dispatcher;
    let mut explanation = Explanation {
        ran,
        of: None,
        against: None,
        because: Vec::new(),
        request: fold.completion.request,
        problem: None,
    };
    if !keeps {
        explanation.problem = Some("nothing to explain: no record of requests is kept");
        return Ok(Some(explanation));
    }
    if ran == 0 {
        explanation.problem = Some("no frame ran: the result was remembered");
        return Ok(Some(explanation));
    }
    let all = dispatcher.provenances()?;
    explanation.of = Some(reached(fold.completion.request, &all).len());
    let Some(this) = dispatcher.provenance(fold.completion.request)? else {
        explanation.problem = Some("nothing to explain: the record of the request is missing");
        return Ok(Some(explanation));
    };
    let names = Names::read(dispatcher, &[session.std, session.standard]);
    if let Some(before) = nearest(dispatcher, &this, &all, &names) {
        explanation.against = Some(before.id.to_string());
        explanation.because = differences(dispatcher, before, &this, &names)?;
    }
    Ok(Some(explanation))
}

/// The input is what a fold is about, so its name is left out.
fn short(reason: &str) -> &str {
    reason.strip_prefix("in/").unwrap_or(reason)
}

fn keep_trees(session: &Session, store: &Arc<dyn Store>, root: ObjectRef) -> Result<(), CliError> {
    let is_stored = |id| store.kind(id).is_ok_and(|kind| kind.is_some());
    std::thread::scope(|scope| {
        // What the fold has written becomes durable meanwhile.
        let flush = scope.spawn(|| store.flush());
        let stored = store_trees(&session.dispatcher, root, is_stored, |tree| {
            store.write(tree)?;
            Ok(())
        });
        flush.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        stored
    })
}
