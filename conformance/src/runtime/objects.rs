//! What a guest does with objects and nested runs arrives at its host, and the results at the
//! guest.

use std::sync::Arc;

use manifold_runtime_api::{Call, ObjectKind, ObjectRef, TestHost, Tree};

use super::RuntimeFixture;
use super::setup::Setup;
use crate::check::{Step, ensure, ensure_eq, short, violation};
use crate::program::Program;

/// > Runs one job and returns its outcome.
///
/// `Program::Echo` returns its argument, which is a blob or a tree.
pub(super) async fn an_argument_can_be_the_outcome(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    let blob = setup.blob("hello");
    let tree = setup.tree(&[("a", blob)])?;
    for input in [blob, tree] {
        let job = setup.job(Program::Echo, &[("in", input), ("other", blob)])?;
        let (outcome, _) = setup.outcome("Program::Echo", job).await?;
        ensure_eq("the outcome of Program::Echo", outcome, input)?;
    }
    Ok(())
}

/// > Runs one job and returns its outcome.
///
/// `Program::Describe` sees the image reference, the salt and the tree of named images of its job.
pub(super) async fn a_guest_sees_its_job(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    let std = setup.tree(&[("an image", setup.blob("a module"))])?.id;
    for (salt, std) in [("", None), ("ein größeres Salz", Some(std)), ("another salt", None)] {
        let job = setup.job(Program::Describe, &[])?.salt(salt).std(std);
        let id = std.map(|id| id.to_string()).unwrap_or_default();
        let expected = format!("{}\n{salt}\n{id}", job.image);
        let found = setup.text("Program::Describe", job).await?;
        ensure_eq("the outcome of Program::Describe", found, expected)?;
    }
    Ok(())
}

/// > An object that one method stored can be read by all others.
///
/// `Program::Put` stores blobs, reads them back and names them in a tree. The content is empty,
/// short, not UTF-8, and a megabyte long.
pub(super) async fn stored_objects_are_found(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    let every_byte: Vec<u8> = (0..=255).collect();
    for content in [Vec::new(), b"ab".to_vec(), every_byte.clone(), every_byte.repeat(2048)] {
        let length = content.len();
        let what = format!("Program::Put of a blob of {length} bytes");
        let job = setup.job(Program::Put, &[("in", setup.blob(content.clone()))])?;
        let (_, object) = setup.outcome(&what, job).await?;
        let tree = decode(&what, object.kind, &object.content)?;
        let entry = tree.get("twice").filter(|_| tree.len() == 1).ok_or_else(|| {
            violation(format!("{what} to return a tree with one entry `twice`"), short(&tree))
        })?;
        let stored = setup.host.read(entry.id);
        let stored = stored
            .map_err(|error| violation(format!("{what} to store its blob"), short(&error)))?;
        ensure(
            stored.content == content.repeat(2),
            format!("{what} to store the content twice in a row, {} bytes", 2 * length),
            || format!("{} bytes: {}", stored.content.len(), short(&stored.content)),
        )?;
    }
    Ok(())
}

/// > Reads the tree `id`.
///
/// `Program::List` finds the entries in the tree's order, which is not that of a directory listing:
/// a tree called `a` comes after `a.txt`.
pub(super) async fn names_are_listed_in_order(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    let blob = setup.blob("x");
    let empty = setup.tree(&[])?;
    let names = [("b", blob), ("a", empty), ("a.txt", blob), ("a b", blob), ("é", empty)];
    let tree = setup.tree(&names)?;
    let job = setup.job(Program::List, &[("in", tree)])?;
    let found = setup.text("Program::List", job).await?;
    ensure_eq("the outcome of Program::List", found.as_str(), "a b\na.txt\na\nb\né\n")?;
    let job = setup.job(Program::List, &[("in", empty)])?;
    let found = setup.text("Program::List of the empty tree", job).await?;
    ensure_eq("the outcome of Program::List for the empty tree", found.as_str(), "")
}

/// > Reads the bytes in `range` of the blob `id`. The part of `range` beyond the end of the blob is
/// > ignored, so the result can be shorter than `range`, or empty.
///
/// `Program::Part` reads a part of blobs that are longer and shorter than the part. It and
/// `Program::Measure` return their sizes.
pub(super) async fn a_blob_has_a_size_and_ranges(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    for (text, part) in [("hello", "5\nel"), ("he", "2\ne"), ("h", "1\n"), ("", "0\n")] {
        let job = setup.job(Program::Part, &[("in", setup.blob(text))])?;
        let found = setup.text("Program::Part", job).await?;
        ensure_eq(&format!("the outcome of Program::Part for {text:?}"), found.as_str(), part)?;
        if setup.fixture.module(Program::Measure).is_some() {
            let job = setup.job(Program::Measure, &[("in", setup.blob(text))])?;
            let found = setup.text("Program::Measure", job).await?;
            let what = format!("the outcome of Program::Measure for {text:?}");
            ensure_eq(&what, found, text.len().to_string())?;
        }
    }
    Ok(())
}

/// > Runs an image and returns its outcome, from the memo if the request was run before.
///
/// `Program::Relay` passes an image reference and arguments to its host, and the outcome back.
pub(super) async fn a_nested_run_gets_its_image_and_arguments(
    fixture: Arc<dyn RuntimeFixture>,
) -> Step {
    const REFERENCE: &str = "/cas/std/the image";
    let host = TestHost::new()
        .image(REFERENCE, |call: Call| async move { Ok(ObjectRef::tree(call.args)) });
    let setup = Setup::with_host(fixture, host);
    let args = setup.tree(&[("a", setup.blob("b"))])?;
    let job = setup.job(Program::Relay, &[("image", setup.blob(REFERENCE)), ("in", args)])?;
    let (outcome, _) = setup.outcome("Program::Relay", job).await?;
    ensure_eq("the outcome of Program::Relay", outcome, args)?;
    let expected = vec![Call { image: REFERENCE.to_owned(), args: args.id }];
    ensure_eq("the calls of Program::Relay", setup.host.calls(), expected)
}

/// > Runs many images, a bounded number at a time, and returns the results in the order of `calls`.
///
/// `Program::FanOut` runs an image for 40 entries. The outcome of each run depends on its argument,
/// so an outcome in a wrong place shows.
pub(super) async fn run_many_keeps_the_order(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let objects = TestHost::new();
    let reader = objects.clone();
    let host = objects.image("inner", move |call: Call| {
        let reader = reader.clone();
        async move {
            let args = Tree::decode(&reader.read(call.args)?.content)?;
            let input = args.entries().first().map_or(call.args, |entry| entry.id);
            let input = reader.read(input)?;
            let text = format!("outcome of {}", String::from_utf8_lossy(&input.content));
            Ok(ObjectRef::blob(reader.put_blob(text)))
        }
    });
    let setup = Setup::with_host(fixture, host);
    let names: Vec<String> = (0..40).map(|number| format!("{number:02}")).collect();
    let tree = |prefix: &str| {
        let entries: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), setup.blob(format!("{prefix}{name}"))))
            .collect();
        setup.tree(&entries)
    };
    let job = setup.job(Program::FanOut, &[("image", setup.blob("inner")), ("in", tree("")?)])?;
    let (outcome, object) = setup.outcome("Program::FanOut", job).await?;
    let found = decode("Program::FanOut", object.kind, &object.content)?;
    ensure(
        outcome == tree("outcome of ")?,
        "Program::FanOut to return the outcome for each entry under the name of the entry",
        || {
            let texts: Vec<_> = found
                .entries()
                .iter()
                .map(|entry| (entry.name.to_string(), setup.host.read(entry.id).ok()))
                .collect();
            short(&texts)
        },
    )?;
    ensure_eq("the number of calls of Program::FanOut", setup.host.calls().len(), names.len())
}

/// Decodes an outcome that has to be a tree.
pub(super) fn decode(what: &str, kind: ObjectKind, content: &[u8]) -> Step<Tree> {
    let expected = format!("{what} to return a valid tree");
    if kind != ObjectKind::Tree {
        return Err(violation(expected, format!("a {kind}")));
    }
    Tree::decode(content).map_err(|error| violation(expected, short(&error)))
}
