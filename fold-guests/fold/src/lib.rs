#![no_std]
//! `fold(in, post, pre?, with?)`: visits a tree from the leaves up.
//!
//! 1. The children are determined. With `pre`, they are the entries of the tree that `pre` returns
//!    for the arguments `{in}`. Without `pre`, they are the entries of `in` if it is a tree, and
//!    there are none if it is a blob. Submodules are skipped, because their commits belong to other
//!    repositories.
//! 2. All children are folded in one `run_many`. Without `pre`, a blob is passed directly to
//!    `post`, with an empty tree of children. Any other child is a request for fold itself.
//! 3. The results are stored in a tree `children` under the children's names. The outcome is the
//!    object that `post` returns for the arguments `{children, in}`.
//!
//! `with` is a tree. Its entries are further arguments of every call of `post` and `pre`.

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use manifold_guest::{
    Entry, Error, Id, Job, Kind, ObjectRef, Result, get, put_tree, run, run_many, tree,
};

fn fold(job: &Job) -> Result<ObjectRef> {
    let input = job.required("in")?.object();
    let post = visitor(job.required("post")?)?;
    let pre = job.optional("pre");
    let with = further_arguments(job)?;

    let children = children(&input, pre, &with)?;
    let no_children = put_tree(&[])?;
    let mut calls: Vec<(&str, Id)> = Vec::with_capacity(children.len());
    for child in &children {
        let child = child.object();
        calls.push(if child.kind == Kind::Blob && pre.is_none() {
            (&post, visit(&no_children, &child, &with)?)
        } else {
            (&job.image, recurse(job, &child)?)
        });
    }
    let results = run_many(calls.iter().map(|(image, args)| (*image, args)))?;
    if results.len() != children.len() {
        return Err(Error::new(
            "the host returned a different number of results than the number of runs requested",
        ));
    }

    let mut folded = Vec::with_capacity(children.len());
    for (child, result) in children.into_iter().zip(results) {
        folded.push(result?.named(child.name));
    }
    run(&post, &visit(&put_tree(&folded)?, &input, &with)?)
}

/// Returns the entries of the argument `with`.
fn further_arguments(job: &Job) -> Result<Vec<Entry>> {
    let Some(with) = job.optional("with") else { return Ok(Vec::new()) };
    if with.kind() != Kind::Tree {
        return Err(Error::new("`with` must be a tree of arguments"));
    }
    let with = tree(&with.id)?;
    if with.iter().any(|entry| entry.name == b"in" || entry.name == b"children") {
        return Err(Error::new("`with` must not contain `in` or `children`, which fold passes"));
    }
    Ok(with)
}

/// Stores the arguments tree of `post`.
fn visit(children: &ObjectRef, input: &ObjectRef, with: &[Entry]) -> Result<Id> {
    let own = [children.named("children"), input.named("in")];
    if with.is_empty() {
        return Ok(put_tree(&own)?.id);
    }
    Ok(put_tree(&[&own, with].concat())?.id)
}

/// Stores the arguments tree of a nested fold: the arguments of `job`, with `child` as `in`.
fn recurse(job: &Job, child: &ObjectRef) -> Result<Id> {
    let mut args = Vec::from([child.named("in")]);
    args.extend(["post", "pre", "with"].into_iter().filter_map(|name| job.optional(name).cloned()));
    Ok(put_tree(&args)?.id)
}

/// Returns the children of `input`, without submodules.
fn children(input: &ObjectRef, pre: Option<&Entry>, with: &[Entry]) -> Result<Vec<Entry>> {
    let parent = match pre {
        Some(pre) => {
            let args = put_tree(&[&[input.named("in")], with].concat())?;
            run(&visitor(pre)?, &args.id)?
        }
        None if input.kind == Kind::Tree => input.clone(),
        None => return Ok(Vec::new()),
    };
    if parent.kind != Kind::Tree {
        return Err(Error::new("`pre` must return a tree"));
    }
    let mut entries = tree(&parent.id)?;
    entries.retain(|entry| entry.kind() != Kind::Commit);
    Ok(entries)
}

/// Returns the image reference that the blob `argument` holds.
///
/// White space around it is trimmed, because `echo` writes a trailing newline.
fn visitor(argument: &Entry) -> Result<String> {
    let reference = get(&argument.id)?;
    String::from_utf8(Vec::from(reference.trim_ascii()))
        .map_err(|_| Error::new("the image reference of a visitor is not valid UTF-8"))
}

manifold_guest::main!(fold);
