//! How two requests differ, as lines for people.

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

/// Returns a line for each difference between two requests.
pub(crate) fn differences(
    dispatcher: &Dispatcher,
    old: &Provenance,
    new: &Provenance,
    names: &Names,
) -> Result<Vec<String>, CliError> {
    let mut lines = Vec::new();
    let (one, other) = (&old.request, &new.request);
    if one.image != other.image {
        images(dispatcher, "image", &one.image, &other.image, names, MAX_LEVELS, &mut lines);
    } else if old.host != new.host {
        hosts(dispatcher, "image", old.host, new.host, &mut lines);
    }
    if one.args != other.args {
        arguments(dispatcher, "", one.args, other.args, names, &mut lines)?;
    }
    if one.salt != other.salt {
        lines.push(format!(
            "salt: {:?} → {:?}",
            shown_in_line(&one.salt),
            shown_in_line(&other.salt)
        ));
    }
    if one.std != other.std {
        named_images(dispatcher, one.std, other.std, &mut lines);
    }
    Ok(lines)
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
    lines: &mut Vec<String>,
) {
    let node = |image: &str| match ImageRef::parse(image) {
        Ok(ImageRef::Node(node)) => NodeShape::of(&dispatcher.read_tree(node).ok()?).ok(),
        _ => None,
    };
    let before = lines.len();
    match (node(old), node(new)) {
        (
            Some(NodeShape::Runtime { marker, module }),
            Some(NodeShape::Runtime { marker: new_marker, module: new_module }),
        ) => {
            let host = |marker| match HostRef::parse(&short_text(dispatcher, marker)?) {
                Ok(HostRef::HostImage(host)) => Some(host),
                _ => None,
            };
            if marker != new_marker {
                match (host(marker), host(new_marker)) {
                    (Some(old), Some(new)) => hosts(dispatcher, what, old, new, lines),
                    _ => lines.push(format!("{what}: another runtime")),
                }
            }
            if module.id != new_module.id {
                // Images that have names of their own are told apart by them.
                let (old_name, new_name) = (names.of(old), names.of(new));
                let are_named = old_name != old && new_name != new && old_name != new_name;
                lines.push(match are_named {
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
                        lines,
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
                images(dispatcher, what, &base, &new_base, names, levels - 1, lines);
            }
            if args != new_args {
                let bound = format!("{what}: bound ");
                let _ = arguments(dispatcher, &bound, args, new_args, names, lines);
            }
        }
        _ => {}
    }
    if lines.len() == before {
        let (old, new) = (shown_in_line(names.of(old)), shown_in_line(names.of(new)));
        lines.push(format!("{what}: {old} → {new}"));
    }
}

/// Adds how the host images of two images differ.
fn hosts(
    dispatcher: &Dispatcher,
    what: &str,
    old: ObjectId,
    new: ObjectId,
    lines: &mut Vec<String>,
) {
    let what = if what == "image" { "host image".to_owned() } else { format!("{what} host image") };
    let settings =
        |host| -> Option<Vec<TreeEntry>> { Some(dispatcher.read_tree(host).ok()?.into_entries()) };
    let (Some(one), Some(other)) = (settings(old), settings(new)) else {
        lines.push(format!("{what}: {old} → {new}"));
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
            lines.push(format!(
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
    lines: &mut Vec<String>,
) -> Result<(), CliError> {
    let (old, new) = (dispatcher.read_tree(old)?, dispatcher.read_tree(new)?);
    for entry in old.entries().iter().filter(|entry| new.get(&entry.name).is_none()) {
        lines.push(format!("{prefix}{} removed", shown_in_line(&entry.name.to_string())));
    }
    for entry in new.entries() {
        let name = shown_in_line(&entry.name.to_string());
        let Some(before) = old.get(&entry.name) else {
            lines.push(format!("{prefix}{name} added"));
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
                images(dispatcher, &what, &old, &new, names, MAX_LEVELS, lines);
            }
            (Some(old), Some(new)) if before.mode != EntryMode::Tree && prefix.is_empty() => {
                lines.push(format!(
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
                let count = lines.len();
                let found = paths(dispatcher, &format!("{prefix}{separator}"), old, new, lines);
                if found.is_err() || lines.len() == count {
                    lines.truncate(count);
                    lines.push(format!("{prefix} changed; what it was is no longer there"));
                }
            }
        }
    }
    Ok(())
}

/// Adds how two trees of named images differ.
fn named_images(
    dispatcher: &Dispatcher,
    old: Option<ObjectId>,
    new: Option<ObjectId>,
    lines: &mut Vec<String>,
) {
    let read = |std: Option<ObjectId>| match std {
        Some(std) => dispatcher.read_tree(std).ok().map(|tree| tree.into_entries()),
        None => Some(Vec::new()),
    };
    let (Some(one), Some(other)) = (read(old), read(new)) else {
        lines.push("std changed; what it was is no longer there".to_owned());
        return;
    };
    let find = |entries: &[TreeEntry], name: &[u8]| {
        entries.iter().find(|entry| entry.name == name).map(|entry| entry.id)
    };
    for entry in &one {
        let name = shown_in_line(&entry.name.to_string());
        match find(&other, &entry.name) {
            None => lines.push(format!("std {name} removed")),
            Some(id) if id != entry.id => lines.push(format!("std {name} is another image")),
            Some(_) => {}
        }
    }
    for entry in other.iter().filter(|entry| find(&one, &entry.name).is_none()) {
        lines.push(format!("std {} added", shown_in_line(&entry.name.to_string())));
    }
}
