#![no_std]
//! `fold(in, post, pre?)`: visits a tree from the leaves up.
//!
//! 1. The children are what `pre` answers for `{in}` (a tree), if there is a `pre`; else the entries of `in` if it is a
//!    tree; else there are none. A submodule is no child: its commit belongs to another repository.
//! 2. Every child is folded, all in one `run_many`: a blob without `pre` goes straight to `post` with no children, anything
//!    else is a request for fold itself.
//! 3. The results under the children's names are `children`, and what `post` answers for `{children, in}` is the outcome.

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use manifold_guest::{
    Entry, Error, Id, Job, Kind, Object, Result, get, put_tree, run, run_many, tree,
};

fn fold(job: &Job) -> Result<Object> {
    let input = job.required("in")?.object();
    let post = visitor(job.required("post")?)?;
    let pre = job.optional("pre");

    let children = children(&input, pre)?;
    let no_children = put_tree(&[])?;
    let mut calls: Vec<(&str, Id)> = Vec::with_capacity(children.len());
    for child in &children {
        let child = child.object();
        calls.push(if child.kind == Kind::Blob && pre.is_none() {
            (&post, visit(&no_children, &child)?)
        } else {
            (&job.image, recurse(job, &child)?)
        });
    }
    let results = run_many(calls.iter().map(|(image, args)| (*image, args)))?;
    if results.len() != children.len() {
        return Err(Error::new("the host answered another number of runs than it was asked for"));
    }

    let mut folded = Vec::with_capacity(children.len());
    for (child, result) in children.into_iter().zip(results) {
        folded.push(result?.named(child.name));
    }
    run(&post, &visit(&put_tree(&folded)?, &input)?)
}

/// The arguments of the visitor.
fn visit(children: &Object, input: &Object) -> Result<Id> {
    Ok(put_tree(&[children.named("children"), input.named("in")])?.id)
}

/// The arguments of fold itself: its own, with `child` in the place of `in`.
fn recurse(job: &Job, child: &Object) -> Result<Id> {
    let mut args = Vec::from([child.named("in")]);
    args.extend(["post", "pre"].into_iter().filter_map(|name| job.optional(name).cloned()));
    Ok(put_tree(&args)?.id)
}

fn children(input: &Object, pre: Option<&Entry>) -> Result<Vec<Entry>> {
    let parent = match pre {
        Some(pre) => run(&visitor(pre)?, &put_tree(&[input.named("in")])?.id)?,
        None if input.kind == Kind::Tree => input.clone(),
        None => return Ok(Vec::new()),
    };
    if parent.kind != Kind::Tree {
        return Err(Error::new("`pre` has to answer a tree"));
    }
    let mut entries = tree(&parent.id)?;
    entries.retain(|entry| entry.kind() != Kind::Commit);
    Ok(entries)
}

/// A visitor is named by a blob that holds an image reference, perhaps with white space around it: `echo` writes some.
fn visitor(argument: &Entry) -> Result<String> {
    let reference = get(&argument.id)?;
    String::from_utf8(Vec::from(reference.trim_ascii()))
        .map_err(|_| Error::new("a visitor's image reference is text"))
}

manifold_guest::main!(fold);
