//! `fold` and `file-count` as native guests. Guests in other languages agree with them, request by
//! request.

use manifold_dispatcher::native::{NativeGuest, NativeRuntimeBuilder, argument};
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    Call, EntryMode, Error, ObjectId, ObjectKind, ObjectRef, Result, TreeEntry,
};

/// Adds the native guests `fold` and `file-count` to a runtime.
///
/// `fold(in, post, pre?, with?)` folds every child of `in`, and passes the results and `in` itself to
/// `post`. The children are the entries of the tree that `pre` returns for `{in}`, or without `pre`
/// the entries of `in` if it is a tree. Submodules are skipped. A blob without `pre` is passed to
/// `post` directly. Every other child is a request for `fold`. The entries of the tree `with` are
/// further arguments of every call of `post` and `pre`.
pub fn native_guests(builder: NativeRuntimeBuilder) -> NativeRuntimeBuilder {
    builder.guest("fold", fold).guest("file-count", file_count)
}

async fn fold(guest: NativeGuest) -> Result<ObjectRef> {
    let input = object(&guest.required("in").await?)?;
    let post = guest.text("post").await?;
    let pre = guest.arg("pre").await?;
    let with = guest.arg("with").await?;
    let further = further_arguments(&guest, with.as_ref()).await?;

    let children = children(&guest, input, pre.is_some(), &further).await?;
    let no_children = ObjectRef::tree(guest.put_tree([]).await?);
    let mut calls = Vec::with_capacity(children.len());
    for child in &children {
        let child = object(child)?;
        calls.push(if child.kind == ObjectKind::Blob && pre.is_none() {
            Call { image: post.clone(), args: visit(&guest, no_children, child, &further).await? }
        } else {
            let mut args = vec![argument("in", child)];
            args.extend(guest.arg("post").await?);
            args.extend(pre.clone());
            args.extend(with.clone());
            Call { image: guest.job().image.to_string(), args: guest.put_tree(args).await? }
        });
    }
    let results = guest.host().run_many(calls).await;

    let mut folded = Vec::with_capacity(children.len());
    for (child, result) in children.iter().zip(results) {
        let result = result?;
        folded.push(TreeEntry::new(child.name.clone(), EntryMode::plain(result.kind), result.id));
    }
    let folded = ObjectRef::tree(guest.put_tree(folded).await?);
    guest.run(&post, visit(&guest, folded, input, &further).await?).await
}

/// Returns the entries of the argument `with`.
async fn further_arguments(
    guest: &NativeGuest,
    with: Option<&TreeEntry>,
) -> Result<Vec<TreeEntry>> {
    let Some(with) = with else { return Ok(Vec::new()) };
    if with.mode != EntryMode::Tree {
        return Err(Error::guest_failed("`with` must be a tree of arguments"));
    }
    let tree = guest.host().tree(with.id).await?;
    if tree.get("in").is_some() || tree.get("children").is_some() {
        return Err(Error::guest_failed(
            "`with` must not contain `in` or `children`, which fold passes",
        ));
    }
    Ok(tree.entries().to_vec())
}

async fn children(
    guest: &NativeGuest,
    input: ObjectRef,
    has_pre: bool,
    further: &[TreeEntry],
) -> Result<Vec<TreeEntry>> {
    let parent = if has_pre {
        let own = [argument("in", input)].into_iter();
        let args = guest.put_tree(own.chain(further.iter().cloned())).await?;
        guest.run(&guest.text("pre").await?, args).await?
    } else if input.kind == ObjectKind::Tree {
        input
    } else {
        return Ok(Vec::new());
    };
    if parent.kind != ObjectKind::Tree {
        return Err(Error::guest_failed("`pre` must return a tree"));
    }
    let tree = guest.host().tree(parent.id).await?;
    Ok(tree.entries().iter().filter(|entry| entry.mode != EntryMode::Commit).cloned().collect())
}

async fn visit(
    guest: &NativeGuest,
    children: ObjectRef,
    input: ObjectRef,
    further: &[TreeEntry],
) -> Result<ObjectId> {
    let own = [argument("children", children), argument("in", input)].into_iter();
    guest.put_tree(own.chain(further.iter().cloned())).await
}

fn object(entry: &TreeEntry) -> Result<ObjectRef> {
    let kind = entry
        .mode
        .object_kind()
        .ok_or_else(|| Error::guest_failed("a submodule cannot be folded"))?;
    Ok(ObjectRef { kind, id: entry.id })
}

async fn file_count(guest: NativeGuest) -> Result<ObjectRef> {
    let mut count = 1u64;
    if guest.required("in").await?.mode == EntryMode::Tree {
        count = 0;
        for child in guest.host().tree(guest.required("children").await?.id).await?.entries() {
            let text = guest.host().get(child.id).await?;
            let number =
                text.to_str().ok().and_then(|text| text.strip_suffix('\n')?.parse::<u64>().ok());
            let number = number.ok_or_else(|| {
                Error::guest_failed(
                    "a child's result is not a decimal number followed by a newline",
                )
            })?;
            count = count
                .checked_add(number)
                .ok_or_else(|| Error::guest_failed("the sum does not fit in 64 bits"))?;
        }
    }
    guest.blob(format!("{count}\n")).await
}
