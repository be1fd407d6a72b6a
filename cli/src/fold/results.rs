//! The result of each directory below the one that was folded.

use std::collections::HashMap;

use manifold_dispatcher::{Dispatcher, Provenance};
use manifold_runtime_api::bstr::{BString, ByteSlice};
use manifold_runtime_api::{ObjectId, ObjectKind, Tree};
use serde::Serialize;

use crate::error::CliError;
use crate::report::OutcomeReport;
use crate::shown::quoted;

/// The result of a directory.
#[derive(Serialize)]
pub(crate) struct DirectoryReport {
    /// The path below the directory that was folded, which is `.` itself.
    path: String,
    #[serde(skip)]
    level: u32,
    request: String,
    result: OutcomeReport,
}

impl DirectoryReport {
    /// Formats the result in a line, indented by its level.
    pub(crate) fn line(&self) -> String {
        let indent = "  ".repeat(self.level as usize);
        format!("{indent}{}  {}\n", self.path, self.result.brief())
    }
}

/// Returns the results of the directories that the fold `request` has visited, up to `depth` levels below
/// the first, in the order of their paths. Directories without a record or outcome are left out.
pub(super) fn of_directories(
    dispatcher: &Dispatcher,
    request: ObjectId,
    depth: u32,
) -> Result<Vec<DirectoryReport>, CliError> {
    let mut reports = Vec::new();
    let Some(root) = dispatcher.provenance(request)? else { return Ok(reports) };
    let image = root.request.image.clone();
    let mut open = vec![(BString::default(), 0, root)];
    while let Some((path, level, record)) = open.pop() {
        let Some(tree) = folded(dispatcher, &record)? else { continue };
        if level < depth {
            // A directory that occurs several times is folded once.
            let mut folds: HashMap<ObjectId, Provenance> = HashMap::new();
            for wanted in &record.wanted {
                let Some(below) = dispatcher.provenance(*wanted)? else { continue };
                if below.request.image == image
                    && let Some(id) = input(dispatcher, &below)?
                {
                    folds.insert(id, below);
                }
            }
            for entry in tree.entries().iter().rev() {
                if let Some(below) = folds.get(&entry.id)
                    && entry.mode.object_kind() == Some(ObjectKind::Tree)
                {
                    let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    let path = [path.as_bytes(), separator, &entry.name].concat();
                    open.push((path.into(), level + 1, below.clone()));
                }
            }
        }
        if let Some(outcome) = dispatcher.look_up(record.id)? {
            let path = if path.is_empty() { b".".to_vec() } else { quoted(&path) };
            reports.push(DirectoryReport {
                path: path.to_str_lossy().into_owned(),
                level,
                request: record.id.to_string(),
                result: OutcomeReport::with_values(dispatcher, outcome)?,
            });
        }
    }
    Ok(reports)
}

/// Returns the id of what a request folds.
fn input(dispatcher: &Dispatcher, record: &Provenance) -> Result<Option<ObjectId>, CliError> {
    Ok(dispatcher.read_tree(record.request.args)?.get("in").map(|entry| entry.id))
}

/// Returns the directory that a request folds.
fn folded(dispatcher: &Dispatcher, record: &Provenance) -> Result<Option<Tree>, CliError> {
    let args = dispatcher.read_tree(record.request.args)?;
    let entry = args.get("in").filter(|entry| entry.mode.object_kind() == Some(ObjectKind::Tree));
    Ok(entry.map(|entry| dispatcher.read_tree(entry.id)).transpose()?)
}
