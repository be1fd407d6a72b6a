//! `fold` and `file-count` as native guests: the reference that guests in other languages agree with, request by request.

use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    Call, EntryMode, Error, ObjectId, ObjectKind, Outcome, Result, TreeEntry,
};

use super::{NativeGuest, NativeRuntimeBuilder, argument};

impl NativeRuntimeBuilder {
    /// Adds the guests `fold` and `file-count`.
    ///
    /// `fold(in, post, pre?)` folds every child of `in` and gives the results, with `in` itself, to `post`. The children are
    /// what `pre` answers for `{in}`, else the entries of a tree; a submodule is none. A blob without `pre` goes straight to
    /// `post`; anything else is a request for fold.
    #[must_use]
    pub fn fold_guests(self) -> Self {
        self.guest("fold", fold).guest("file-count", file_count)
    }
}

async fn fold(guest: NativeGuest) -> Result<Outcome> {
    let input = object(&guest.required("in").await?)?;
    let post = guest.text("post").await?;
    let pre = guest.arg("pre").await?;

    let children = children(&guest, input, pre.is_some()).await?;
    let no_children = Outcome::tree(guest.put_tree([]).await?);
    let mut calls = Vec::with_capacity(children.len());
    for child in &children {
        let child = object(child)?;
        calls.push(if child.kind == ObjectKind::Blob && pre.is_none() {
            Call { image: post.clone(), args: visit(&guest, no_children, child).await? }
        } else {
            let mut args = vec![argument("in", child)];
            args.extend(guest.arg("post").await?);
            args.extend(pre.clone());
            Call { image: guest.job().image.to_string(), args: guest.put_tree(args).await? }
        });
    }
    let results = guest.host().run_many(calls).await;

    let mut folded = Vec::with_capacity(children.len());
    for (child, result) in children.iter().zip(results) {
        let result = result?;
        folded.push(TreeEntry::new(child.name.clone(), EntryMode::plain(result.kind), result.id));
    }
    let folded = Outcome::tree(guest.put_tree(folded).await?);
    guest.run(&post, visit(&guest, folded, input).await?).await
}

async fn children(guest: &NativeGuest, input: Outcome, has_pre: bool) -> Result<Vec<TreeEntry>> {
    let parent = if has_pre {
        let args = guest.put_tree([argument("in", input)]).await?;
        guest.run(&guest.text("pre").await?, args).await?
    } else if input.kind == ObjectKind::Tree {
        input
    } else {
        return Ok(Vec::new());
    };
    if parent.kind != ObjectKind::Tree {
        return Err(Error::guest_failed("`pre` has to answer a tree"));
    }
    let tree = guest.host().tree(parent.id).await?;
    Ok(tree.entries().iter().filter(|entry| entry.mode != EntryMode::Commit).cloned().collect())
}

async fn visit(guest: &NativeGuest, children: Outcome, input: Outcome) -> Result<ObjectId> {
    guest.put_tree([argument("children", children), argument("in", input)]).await
}

fn object(entry: &TreeEntry) -> Result<Outcome> {
    let kind = entry
        .mode
        .object_kind()
        .ok_or_else(|| Error::guest_failed("a submodule cannot be folded"))?;
    Ok(Outcome { kind, id: entry.id })
}

async fn file_count(guest: NativeGuest) -> Result<Outcome> {
    let mut count = 1u64;
    if guest.required("in").await?.mode == EntryMode::Tree {
        count = 0;
        for child in guest.host().tree(guest.required("children").await?.id).await?.entries() {
            let text = guest.host().get(child.id).await?;
            let number =
                text.to_str().ok().and_then(|text| text.strip_suffix('\n')?.parse::<u64>().ok());
            count += number.ok_or_else(|| {
                Error::guest_failed("a child's result is no number and a newline")
            })?;
        }
    }
    guest.blob(format!("{count}\n")).await
}
