//! The remembered request that is most like another one.

use std::cmp::Ordering;
use std::collections::HashMap;

use manifold_dispatcher::{Dispatcher, Provenance};
use manifold_runtime_api::{ObjectId, Tree};

use super::{Names, reached};

/// Returns the request among `all` that is most like `this`, of those that `this` does not want itself,
/// directly or indirectly.
pub(crate) fn nearest<'a>(
    dispatcher: &Dispatcher,
    this: &Provenance,
    all: &'a [Provenance],
    names: &Names,
) -> Option<&'a Provenance> {
    let own = reached(this.id, all);
    let args = dispatcher.read_tree(this.request.args).ok()?;
    let mut names_of = HashMap::new();
    let scored = all.iter().filter(|other| !own.contains(&other.id)).filter_map(|other| {
        let score = likeness(dispatcher, this, &args, other, names, &mut names_of)?;
        Some((score, other))
    });
    let best = scored.max_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    best.map(|(_, other)| other)
}

/// Returns how alike two requests are. `None` if they have other arguments by name, or nothing in
/// common. `names_of` has the names in the trees of named images that were read.
fn likeness(
    dispatcher: &Dispatcher,
    this: &Provenance,
    args: &Tree,
    other: &Provenance,
    names: &Names,
    names_of: &mut HashMap<ObjectId, Names>,
) -> Option<f64> {
    // The images of two versions of a program have the same name, but other references.
    let (image, other_image) = (&*this.request.image, &*other.request.image);
    let mut same_name = || {
        let Some(std) = other.request.std else { return false };
        let others = names_of.entry(std).or_insert_with(|| Names::read(dispatcher, &[std]));
        others.of(other_image) == names.of(image)
    };
    let is_same_image = image == other_image;
    if !is_same_image && this.request.args != other.request.args && !same_name() {
        return None;
    }
    let others = dispatcher.read_tree(other.request.args).ok()?;
    let same_args = args.len() == others.len()
        && args.entries().iter().zip(others.entries()).all(|(one, other)| one.name == other.name);
    if !same_args {
        return None;
    }
    let mut score = if is_same_image { 4.0 } else { 0.0 };
    score += if this.request.salt == other.request.salt { 2.0 } else { 0.0 };
    score += if this.request.std == other.request.std { 2.0 } else { 0.0 };
    score += if this.host == other.host { 1.0 } else { 0.0 };
    for (one, other) in args.entries().iter().zip(others.entries()) {
        score += if one.id == other.id { 2.0 } else { in_common(dispatcher, one.id, other.id) };
    }
    Some(score)
}

/// Returns the share of the entries of two trees that are the same, or nearly so by their names.
fn in_common(dispatcher: &Dispatcher, one: ObjectId, other: ObjectId) -> f64 {
    let trees = dispatcher.read_tree(one).and_then(|one| Ok((one, dispatcher.read_tree(other)?)));
    let Ok((one, other)) = trees else { return 0.0 };
    let all = one.len().max(other.len()).max(1);
    let alike = one.entries().iter().map(|entry| match other.get(&entry.name) {
        Some(found) if found.id == entry.id => 1.0,
        Some(_) => 0.5,
        None => 0.0,
    });
    alike.sum::<f64>() / all as f64
}
