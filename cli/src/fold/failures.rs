//! Which frames of a failed fold failed by themselves.

use std::collections::{HashMap, HashSet};

use manifold_dispatcher::{Dispatcher, Provenance};
use manifold_runtime_api::ObjectId;
use serde::Serialize;

use crate::error::CliError;
use crate::explain::Names;
use crate::input::Input;
use crate::places::{self, add_first_paths, argument_in};
use crate::session::Session;
use crate::shown::{quoted_text, shown_in_line};

/// A frame that failed by itself, and not because a frame failed that it wanted.
#[derive(Debug, Serialize)]
pub(crate) struct FailedFrame {
    /// The path of what the frame was run on, if that is a part of the input.
    path: Option<String>,
    request: String,
    image: String,
    message: String,
}

impl FailedFrame {
    /// Formats the failure in a line.
    pub(crate) fn line(&self) -> String {
        let Self { path, request, image, message } = self;
        let path = path.as_deref().unwrap_or("outside the input");
        let (image, message) = (shown_in_line(image), shown_in_line(message));
        format!("{path}: {message} ({image}, request {})", &request[..12])
    }
}

/// Adds to the error of the fold `request` which frames failed, if `lists` is set, or else how many
/// others did.
pub(super) fn explain(
    error: CliError,
    session: &Session,
    input: &Input,
    request: ObjectId,
    lists: bool,
) -> CliError {
    let CliError::Failed(failure) = error else { return error };
    // What ends the whole call says nothing about its frames.
    if failure.breached_limit().is_some_and(|limit| limit.is_of_call()) {
        return CliError::Failed(failure);
    }
    // If the records cannot be read, the error itself is still known.
    let failed = failed_below(&session.dispatcher, request).unwrap_or_default();
    if lists && !failed.is_empty() {
        return CliError::SomeFailed {
            frames: described(session, input, &failed),
            source: failure,
        };
    }
    let error = CliError::Failed(failure);
    match failed.len() {
        0 | 1 => error,
        several => CliError::OneOfSeveral {
            others: several - 1,
            error: Box::new(places::explain(error, &session.dispatcher, input)),
        },
    }
}

/// Returns the records of the frames below `request` that failed by themselves.
fn failed_below(dispatcher: &Dispatcher, request: ObjectId) -> Result<Vec<Provenance>, CliError> {
    let failed = |request| -> Result<Option<Provenance>, CliError> {
        Ok(dispatcher.provenance(request)?.filter(|record| record.error.is_some()))
    };
    let (mut found, mut met) = (Vec::new(), HashSet::from([request]));
    let mut open: Vec<_> = failed(request)?.into_iter().collect();
    while let Some(record) = open.pop() {
        let mut is_cause = true;
        for wanted in record.wanted.iter().collect::<HashSet<_>>() {
            if let Some(below) = failed(*wanted)? {
                is_cause = false;
                if met.insert(*wanted) {
                    open.push(below);
                }
            }
        }
        if is_cause {
            found.push(record);
        }
    }
    Ok(found)
}

/// Describes frames, in the order of their paths.
fn described(session: &Session, input: &Input, failed: &[Provenance]) -> Vec<FailedFrame> {
    let dispatcher = &session.dispatcher;
    let names = Names::read(dispatcher, &[session.std, session.standard]);
    let inputs: Vec<_> =
        failed.iter().map(|record| argument_in(dispatcher, record.request.args)).collect();
    let wanted: HashSet<_> = inputs.iter().flatten().copied().collect();
    let mut paths = HashMap::new();
    let read = |id| dispatcher.read_tree(id).ok();
    add_first_paths(&mut paths, read, input.root, |id| wanted.contains(&id));
    let frames = failed.iter().zip(inputs).map(|(record, input)| FailedFrame {
        path: input.and_then(|id| paths.get(&id)).map(|path| quoted_text(path)),
        request: record.id.to_string(),
        image: names.of(&record.request.image).to_owned(),
        message: record.error.clone().unwrap_or_default(),
    });
    let mut frames: Vec<_> = frames.collect();
    frames.sort_by(|one, other| one.path.cmp(&other.path));
    frames
}
