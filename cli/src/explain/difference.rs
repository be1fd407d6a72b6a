//! How two requests differ, as lines for people.

use std::collections::HashSet;

use manifold_dispatcher::{Dispatcher, Provenance};
use manifold_runtime_api::{
    EntryMode, HostRef, ImageRef, NodeShape, ObjectId, ObjectKind, TreeEntry,
};

use super::Names;
use crate::diff;
use crate::error::CliError;
use crate::objects::Named;
use crate::shown::shown_in_line;

/// The length in bytes up to which a blob is shown as text.
const SHORT_BYTES: u64 = 200;
/// How many images are followed that others name.
const MAX_LEVELS: usize = 16;

/// The differences that were found.
#[derive(Default)]
struct Found {
    lines: Vec<String>,
    /// Pairs of host images whose differences are among the lines. Another version of a runtime makes
    /// all of its images others, and is one difference.
    hosts: HashSet<(ObjectId, ObjectId)>,
}

/// Returns a line for each difference between two requests.
pub(crate) fn differences(
    dispatcher: &Dispatcher,
    old: &Provenance,
    new: &Provenance,
    names: &Names,
) -> Result<Vec<String>, CliError> {
    let mut found = Found::default();
    let (one, other) = (&old.request, &new.request);
    if one.image != other.image {
        images(dispatcher, "image", &one.image, &other.image, names, MAX_LEVELS, &mut found);
    } else if old.host != new.host {
        hosts(dispatcher, "image", old.host, new.host, &mut found);
    }
    if one.args != other.args {
        arguments(dispatcher, "", one.args, other.args, names, &mut found)?;
    }
    if one.salt != other.salt {
        found.lines.push(format!(
            "salt: {:?} → {:?}",
            shown_in_line(&one.salt),
            shown_in_line(&other.salt)
        ));
    }
    if one.std != other.std {
        named_images(dispatcher, one.std, other.std, &mut found);
    }
    Ok(found.lines)
}

/// Returns the text of a short blob.
pub(super) fn short_text(dispatcher: &Dispatcher, id: ObjectId) -> Option<String> {
    let size = dispatcher.blob_size(id).ok()?;
    if size > SHORT_BYTES {
        return None;
    }
    String::from_utf8(dispatcher.read(id).ok()?.content.to_vec()).ok()
}

/// Adds how two images differ.
fn images(
    dispatcher: &Dispatcher,
    what: &str,
    old: &str,
    new: &str,
    names: &Names,
    levels: usize,
    found: &mut Found,
) {
    let node = |image: &str| match ImageRef::parse(image) {
        Ok(ImageRef::Node(node)) => NodeShape::of(&dispatcher.read_tree(node).ok()?).ok(),
        _ => None,
    };
    let before = found.lines.len();
    let mut is_explained = false;
    match (node(old), node(new)) {
        (
            Some(NodeShape::Runtime { marker, module }),
            Some(NodeShape::Runtime { marker: new_marker, module: new_module }),
        ) => {
            if marker != new_marker {
                match (host_of(dispatcher, marker), host_of(dispatcher, new_marker)) {
                    (Some(old), Some(new)) => {
                        hosts(dispatcher, what, old, new, found);
                        is_explained = true;
                    }
                    _ => found.lines.push(format!("{what}: another runtime")),
                }
            }
            if module.id != new_module.id {
                // Images that have names of their own are told apart by them.
                let (old_name, new_name) = (names.of(old), names.of(new));
                let are_named = old_name != old && new_name != new && old_name != new_name;
                found.lines.push(match are_named {
                    true => {
                        format!("{what}: {} → {}", shown_in_line(old_name), shown_in_line(new_name))
                    }
                    false => format!("{what}: another module"),
                });
                let are_trees = [module, new_module].iter().all(|m| m.kind == ObjectKind::Tree);
                if are_trees && !are_named {
                    let _ = paths(
                        dispatcher,
                        &format!("{what} "),
                        tree_named(module.id),
                        tree_named(new_module.id),
                        &mut found.lines,
                    );
                }
            }
        }
        (
            Some(NodeShape::Curry { base, args }),
            Some(NodeShape::Curry { base: new_base, args: new_args }),
        ) if levels > 0 => {
            if let (true, Some(base), Some(new_base)) =
                (base != new_base, short_text(dispatcher, base), short_text(dispatcher, new_base))
            {
                images(dispatcher, what, &base, &new_base, names, levels - 1, found);
            }
            if args != new_args {
                let bound = format!("{what}: bound ");
                let _ = arguments(dispatcher, &bound, args, new_args, names, found);
            }
        }
        _ => {}
    }
    if found.lines.len() == before && !is_explained {
        let (old, new) = (shown_in_line(names.of(old)), shown_in_line(names.of(new)));
        found.lines.push(format!("{what}: {old} → {new}"));
    }
}

/// Returns the host image that a runtime marker names.
fn host_of(dispatcher: &Dispatcher, marker: ObjectId) -> Option<ObjectId> {
    match HostRef::parse(&short_text(dispatcher, marker)?) {
        Ok(HostRef::HostImage(host)) => Some(host),
        _ => None,
    }
}

/// Adds how the host images of two images differ, unless that is known.
fn hosts(dispatcher: &Dispatcher, what: &str, old: ObjectId, new: ObjectId, found: &mut Found) {
    if !found.hosts.insert((old, new)) {
        return;
    }
    let what = if what == "image" { "host image".to_owned() } else { format!("{what} host image") };
    let settings =
        |host| -> Option<Vec<TreeEntry>> { Some(dispatcher.read_tree(host).ok()?.into_entries()) };
    let (Some(one), Some(other)) = (settings(old), settings(new)) else {
        found.lines.push(format!("{what}: {old} → {new}"));
        return;
    };
    let value = |entries: &[TreeEntry], name: &[u8]| {
        let entry = entries.iter().find(|entry| entry.name == name)?;
        short_text(dispatcher, entry.id)
    };
    let name = value(&other, b"name").unwrap_or_default();
    let mut keys: Vec<_> = one.iter().chain(&other).map(|entry| entry.name.clone()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let (old, new) = (value(&one, &key), value(&other, &key));
        if old != new {
            let shown =
                |value: Option<String>| value.map_or("none".to_owned(), |v| shown_in_line(&v));
            found.lines.push(format!(
                "{what}: {} {key} {} → {}",
                shown_in_line(&name),
                shown(old),
                shown(new)
            ));
        }
    }
}

const fn tree_named(id: ObjectId) -> Named {
    Named { id, mode: EntryMode::Tree }
}

/// Adds the paths at which two trees differ. Errors if one of them cannot be read.
fn paths(
    dispatcher: &Dispatcher,
    prefix: &str,
    old: Named,
    new: Named,
    lines: &mut Vec<String>,
) -> Result<(), CliError> {
    for (path, change) in diff::changed_paths(dispatcher, old, new)? {
        lines.push(format!("{prefix}{path} {change}"));
    }
    Ok(())
}

/// Adds how two trees of arguments differ.
fn arguments(
    dispatcher: &Dispatcher,
    prefix: &str,
    old: ObjectId,
    new: ObjectId,
    names: &Names,
    found: &mut Found,
) -> Result<(), CliError> {
    let (old, new) = (dispatcher.read_tree(old)?, dispatcher.read_tree(new)?);
    for entry in old.entries().iter().filter(|entry| new.get(&entry.name).is_none()) {
        found.lines.push(format!("{prefix}{} removed", shown_in_line(&entry.name.to_string())));
    }
    for entry in new.entries() {
        let name = shown_in_line(&entry.name.to_string());
        let Some(before) = old.get(&entry.name) else {
            found.lines.push(format!("{prefix}{name} added"));
            continue;
        };
        if before.id == entry.id && before.mode == entry.mode {
            continue;
        }
        let texts = (short_text(dispatcher, before.id), short_text(dispatcher, entry.id));
        let is_image = |text: &str| {
            ImageRef::parse(text)
                .is_ok_and(|image| matches!(image, ImageRef::Node(_) | ImageRef::Docker(_)))
        };
        match texts {
            (Some(old), Some(new)) if is_image(&old) && is_image(&new) => {
                let what = format!("{prefix}{name}");
                images(dispatcher, &what, &old, &new, names, MAX_LEVELS, found);
            }
            (Some(old), Some(new)) if before.mode != EntryMode::Tree && prefix.is_empty() => {
                found.lines.push(format!(
                    "{name}: {:?} → {:?}",
                    shown_in_line(&old),
                    shown_in_line(&new)
                ));
            }
            _ => {
                let (old, new) = (
                    Named { id: before.id, mode: before.mode },
                    Named { id: entry.id, mode: entry.mode },
                );
                let both_trees = [old, new].iter().all(|named| named.mode == EntryMode::Tree);
                let prefix = format!("{prefix}{name}");
                let separator = if both_trees { "/" } else { "" };
                let lines = &mut found.lines;
                let count = lines.len();
                let added = paths(dispatcher, &format!("{prefix}{separator}"), old, new, lines);
                if added.is_err() || lines.len() == count {
                    lines.truncate(count);
                    lines.push(format!("{prefix} changed; what it was is no longer there"));
                }
            }
        }
    }
    Ok(())
}

/// Returns the host images of two images that have the same module on different ones.
fn other_host(
    dispatcher: &Dispatcher,
    old: ObjectId,
    new: ObjectId,
) -> Option<(ObjectId, ObjectId)> {
    let shape = |image| match NodeShape::of(&dispatcher.read_tree(image).ok()?) {
        Ok(NodeShape::Runtime { marker, module }) => Some((host_of(dispatcher, marker)?, module)),
        _ => None,
    };
    let ((old_host, old), (new_host, new)) = (shape(old)?, shape(new)?);
    (old == new).then_some((old_host, new_host))
}

/// Adds how two trees of named images differ.
fn named_images(
    dispatcher: &Dispatcher,
    old: Option<ObjectId>,
    new: Option<ObjectId>,
    found: &mut Found,
) {
    let read = |std: Option<ObjectId>| match std {
        Some(std) => dispatcher.read_tree(std).ok().map(|tree| tree.into_entries()),
        None => Some(Vec::new()),
    };
    let (Some(one), Some(other)) = (read(old), read(new)) else {
        found.lines.push("std changed; what it was is no longer there".to_owned());
        return;
    };
    let find = |entries: &[TreeEntry], name: &[u8]| {
        entries.iter().find(|entry| entry.name == name).map(|entry| entry.id)
    };
    for entry in &one {
        let name = shown_in_line(&entry.name.to_string());
        match find(&other, &entry.name) {
            None => found.lines.push(format!("std {name} removed")),
            Some(id) if id == entry.id => {}
            Some(id) => match other_host(dispatcher, entry.id, id) {
                Some((old, new)) => hosts(dispatcher, &format!("std {name}"), old, new, found),
                None => found.lines.push(format!("std {name} is another image")),
            },
        }
    }
    for entry in other.iter().filter(|entry| find(&one, &entry.name).is_none()) {
        found.lines.push(format!("std {} added", shown_in_line(&entry.name.to_string())));
    }
}
