//! `manifold explain`: what a request is, and why it was computed. `manifold where`: which requests
//! made an object.

mod difference;
mod nearest;

use std::collections::{HashMap, HashSet};

use manifold_dispatcher::{Dispatcher, Provenance};
use manifold_runtime_api::{Error, Object, ObjectId, ObjectKind, ObjectRef, Tree};
use serde_json::{Value as Json, json};

use crate::args::{Explain, Where};
use crate::error::CliError;
use crate::objects;
use crate::places::path_below;
use crate::report;
use crate::session::Session;
use crate::shown::{quoted_text, shown_in_line};

pub(crate) use difference::differences;
pub(crate) use nearest::nearest;

/// How many requests and differences are listed.
const LISTED: usize = 20;

/// The names of images, by image reference.
pub(crate) struct Names(HashMap<String, String>);

impl Names {
    /// Reads the names in the trees of named images. Of several names of an image, the shortest counts.
    pub(crate) fn read(dispatcher: &Dispatcher, trees: &[ObjectId]) -> Self {
        let mut names = HashMap::new();
        for tree in trees {
            let Ok(tree) = dispatcher.read_tree(*tree) else { continue };
            for entry in tree.entries() {
                let name = entry.name.to_string();
                let known = names.entry(entry.id.to_string()).or_insert_with(|| name.clone());
                if name.len() < known.len() {
                    *known = name;
                }
            }
        }
        Self(names)
    }

    /// Returns the name of an image.
    pub(crate) fn known(&self, image: &str) -> Option<&str> {
        self.0.get(image).map(String::as_str)
    }

    /// Returns the name of an image, or the image reference if it has none.
    pub(crate) fn of<'a>(&'a self, image: &'a str) -> &'a str {
        self.known(image).unwrap_or(image)
    }
}

/// Returns the record of a request. Errors if the store has none.
pub(crate) fn record(dispatcher: &Dispatcher, request: ObjectId) -> Result<Provenance, CliError> {
    let found = dispatcher.provenance(request)?;
    found.ok_or_else(|| CliError::NoProvenance { request: request.to_string() })
}

pub(crate) fn explain(options: &Explain) -> Result<(), CliError> {
    let session = options.reading.session()?;
    let dispatcher = &session.dispatcher;
    let this = record(dispatcher, objects::id(dispatcher, &options.request)?)?;
    let all = dispatcher.provenances()?;
    let names = names(&session, &this);
    let wanted_by: Vec<_> =
        all.iter().filter(|other| other.wanted.contains(&this.id)).map(|other| other.id).collect();
    let other = match &options.against {
        Some(against) => Some(record(dispatcher, objects::id(dispatcher, against)?)?),
        None => nearest(dispatcher, &this, &all, &names).cloned(),
    };
    let differences = match &other {
        Some(other) => differences(dispatcher, other, &this, &names)?,
        None => Vec::new(),
    };
    let outcome = dispatcher.look_up(this.id)?;
    if options.json {
        let wanted: Vec<_> = this.wanted.iter().map(ObjectId::to_string).collect();
        return report::print(
            report::json(&json!({
                "request": this.id.to_string(),
                "image": { "reference": &*this.request.image, "name": names.of(&this.request.image) },
                "host": this.host.to_string(),
                "runtime": host_name(dispatcher, this.host),
                "args": args(dispatcher, &this, &names)
                    .into_iter()
                    .map(|(name, value)| (name, Json::String(value)))
                    .collect::<serde_json::Map<_, _>>(),
                "salt": &*this.request.salt,
                "std": this.request.std.map(|std| std.to_string()),
                "outcome": outcome
                    .map(|outcome| json!({ "kind": outcome.kind.as_str(), "hash": outcome.id.to_string() })),
                "error": this.error,
                "wanted": wanted,
                "wanted_by": wanted_by.iter().map(ObjectId::to_string).collect::<Vec<_>>(),
                "against": other.as_ref().map(|other| other.id.to_string()),
                "differences": differences,
            }))?
            .as_bytes(),
        );
    }
    let mut text = format!(
        "request  {}\nimage    {} on {}\n",
        this.id,
        image_line(&names, &this.request.image),
        host_name(dispatcher, this.host),
    );
    for (name, value) in args(dispatcher, &this, &names) {
        text += &format!("arg      {} = {}\n", shown_in_line(&name), shown_in_line(&value));
    }
    if !this.request.salt.is_empty() {
        text += &format!("salt     {}\n", shown_in_line(&this.request.salt));
    }
    if let Some(std) = this.request.std {
        text += &format!("std      {std}\n");
    }
    text += &match (&this.error, outcome) {
        (Some(error), None) => format!("error    {}\n", shown_in_line(error)),
        (_, Some(outcome)) => format!("outcome  {} {}\n", outcome.kind, outcome.id),
        (None, None) => "outcome  no longer there\n".to_owned(),
    };
    text += &format!("\nwanted {}", counted(this.wanted.len()));
    text += &tally(&this, &all, &names);
    text += &listed("wanted by", &wanted_by, &all, &names);
    text += &match &other {
        None => "\nNo similar request is remembered.\n".to_owned(),
        Some(other) if differences.is_empty() => {
            format!("\nIt is the same as {}.\n", other.id)
        }
        Some(other) => {
            let shown: String =
                differences.iter().take(LISTED).map(|line| format!("  {line}\n")).collect();
            let rest = match differences.len().saturating_sub(LISTED) {
                0 => String::new(),
                rest => format!("  … and {rest} more\n"),
            };
            format!("\nAgainst {}, the nearest that is remembered:\n{shown}{rest}", other.id)
        }
    };
    report::print(text.as_bytes())
}

/// The names of images in the trees that a request and the session know.
fn names(session: &Session, of: &Provenance) -> Names {
    let trees: Vec<_> = of.request.std.into_iter().chain([session.std, session.standard]).collect();
    Names::read(&session.dispatcher, &trees)
}

fn counted(count: usize) -> String {
    if count == 1 { "1 request".to_owned() } else { format!("{count} requests") }
}

fn image_line(names: &Names, image: &str) -> String {
    match names.of(image) {
        name if name == image => shown_in_line(image),
        name => format!("{} ({})", shown_in_line(name), shown_in_line(image)),
    }
}

/// Returns the name of a host image and what tells its versions apart.
fn host_name(dispatcher: &Dispatcher, host: ObjectId) -> String {
    let setting = |name: &str| {
        let tree = dispatcher.read_tree(host).ok()?;
        let content = dispatcher.read(tree.get(name)?.id).ok()?.content;
        String::from_utf8(content.to_vec()).ok()
    };
    match (setting("name"), setting("engine")) {
        (Some(name), Some(engine)) => format!("{name} {engine}"),
        (Some(name), None) => name,
        _ => format!("a runtime with the host image {host}"),
    }
}

/// Returns the arguments of a request: short texts as they are, names of images, and ids.
pub(crate) fn args(
    dispatcher: &Dispatcher,
    of: &Provenance,
    names: &Names,
) -> Vec<(String, String)> {
    let Ok(tree) = dispatcher.read_tree(of.request.args) else { return Vec::new() };
    let value = |entry: &manifold_runtime_api::TreeEntry| {
        let text = difference::short_text(dispatcher, entry.id);
        match text {
            Some(text) => names.of(&text).to_owned(),
            None => format!("{} {}", entry.mode.kind_str(), entry.id),
        }
    };
    tree.entries().iter().map(|entry| (entry.name.to_string(), value(entry))).collect()
}

/// Returns how often the run wanted which image.
fn tally(of: &Provenance, all: &[Provenance], names: &Names) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for wanted in &of.wanted {
        let image = match find(all, *wanted) {
            Some(record) => shown_in_line(names.of(&record.request.image)),
            None => "(not recorded)".to_owned(),
        };
        match counts.iter_mut().find(|(name, _)| *name == image) {
            Some((_, count)) => *count += 1,
            None => counts.push((image, 1)),
        }
    }
    let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} × {count}")).collect();
    if counts.is_empty() { "\n".to_owned() } else { format!(": {}\n", counts.join(", ")) }
}

/// Lists requests with their images.
fn listed(what: &str, requests: &[ObjectId], all: &[Provenance], names: &Names) -> String {
    let mut text = format!("{what} {}\n", counted(requests.len()));
    for request in requests.iter().take(LISTED) {
        let image = find(all, *request).map_or("", |record| names.of(&record.request.image));
        text += &format!("  {request} {}\n", shown_in_line(image));
    }
    if requests.len() > LISTED {
        text += &format!("  … and {} more\n", requests.len() - LISTED);
    }
    text
}

/// Returns the record of a request among all, which are in the order of their ids.
fn find(all: &[Provenance], request: ObjectId) -> Option<&Provenance> {
    all.binary_search_by_key(&request, |record| record.id).ok().map(|index| &all[index])
}

/// Returns the requests that `root` reaches through what runs wanted, with itself.
pub(crate) fn reached(root: ObjectId, all: &[Provenance]) -> HashSet<ObjectId> {
    let mut reached = HashSet::from([root]);
    let mut open = vec![root];
    while let Some(request) = open.pop() {
        let Some(record) = find(all, request) else { continue };
        open.extend(record.wanted.iter().filter(|wanted| reached.insert(**wanted)));
    }
    reached
}

pub(crate) fn find_makers(options: &Where) -> Result<(), CliError> {
    let session = options.reading.session()?;
    let dispatcher = &session.dispatcher;
    let id = objects::id(dispatcher, &options.id)?;
    let memo = dispatcher.memo()?;
    let makers: Vec<_> =
        memo.iter().filter(|(_, outcome)| outcome.id == id).map(|(request, _)| *request).collect();
    let pins: Vec<_> = dispatcher
        .pins()?
        .into_iter()
        .filter(|pin| !pin.is_of_named_images())
        .filter_map(|pin| {
            let path = path_below(dispatcher, pin.outcome, id)?;
            Some((pin.request, quoted_text(&path)))
        })
        .collect();
    let all = dispatcher.provenances()?;
    let names = Names::read(dispatcher, &[session.std, session.standard]);
    let image = |request: &ObjectId| {
        find(&all, *request).map(|record| names.of(&record.request.image).to_owned())
    };
    if options.json {
        let makers: Vec<_> = makers
            .iter()
            .map(|request| json!({ "request": request.to_string(), "image": image(request) }))
            .collect();
        let pins: Vec<_> = pins
            .iter()
            .map(|(request, path)| json!({ "request": request.to_string(), "path": path }))
            .collect();
        return report::print(
            report::json(&json!({ "made_by": makers, "pinned_by": pins }))?.as_bytes(),
        );
    }
    let mut text = listed("made by", &makers, &all, &names);
    text += &format!("reached by {} pins\n", pins.len());
    for (request, path) in pins.iter().take(LISTED) {
        let path = if path.is_empty() { "its outcome" } else { path };
        text += &format!("  {request} {path}\n");
    }
    if pins.len() > LISTED {
        text += &format!("  … and {} more\n", pins.len() - LISTED);
    }
    report::print(text.as_bytes())
}

/// Stores the trees of an input below `root`, without its files, so that later inputs can be compared
/// with it. `is_stored` tells which trees the store has, with all trees below them.
pub(crate) fn store_trees(
    dispatcher: &Dispatcher,
    root: ObjectRef,
    is_stored: impl Fn(ObjectId) -> bool,
    write: impl FnMut(Object) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut met = HashSet::new();
    let mut trees: Vec<Object> = Vec::new();
    let mut open = if root.kind == ObjectKind::Tree { vec![root.id] } else { Vec::new() };
    while let Some(id) = open.pop() {
        if !met.insert(id) || is_stored(id) {
            continue;
        }
        let object = dispatcher.read(id)?;
        let tree = Tree::decode_as_git_reads(&object.content)
            .map_err(|problem| Error::bad_tree(id, problem))?;
        open.extend(
            tree.objects().filter(|below| below.kind == ObjectKind::Tree).map(|below| below.id),
        );
        trees.push(object);
    }
    // From the leaves up, so that the store never has a tree without those below it.
    trees.into_iter().rev().try_for_each(write)
}
