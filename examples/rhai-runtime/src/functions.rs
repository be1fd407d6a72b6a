//! The functions that guests call, besides those of rhai's packages.
#![allow(missing_docs, unreachable_pub, reason = "the macro makes an item of each function")]

use manifold_runtime_api::abi::{Answer, Operation};
use manifold_runtime_api::{Call, EntryMode, ObjectId, ObjectRef, Result, TreeEntry};
use rhai::plugin::*;
use rhai::{Array, Blob, Map};

use crate::host::{Called, ask, blob, entry, object, stored, thrown, unexpected};

#[export_module]
pub(crate) mod functions {
    /// Returns the entries of a tree, in git's order: `#{name, mode, object}`. The object of a
    /// submodule is `()`.
    #[rhai_fn(return_raw)]
    pub fn tree(object: ObjectRef) -> Called<Array> {
        match ask(Operation::Tree(object.id))? {
            Answer::Tree(tree) => Ok(tree.entries().iter().map(entry).collect()),
            _ => unexpected(),
        }
    }

    /// Reads a blob.
    #[rhai_fn(return_raw)]
    pub fn get(object: ObjectRef) -> Called<Blob> {
        blob(ask(Operation::Get(object.id))?)
    }

    /// Reads a part of a blob.
    #[rhai_fn(return_raw, name = "get")]
    pub fn get_range(object: ObjectRef, offset: i64, length: i64) -> Called<Blob> {
        let (offset, length) = (u64::try_from(offset), u64::try_from(length));
        let (Ok(offset), Ok(length)) = (offset, length) else {
            return Err("the offset and the length of a range cannot be negative".into());
        };
        blob(ask(Operation::GetRange { id: object.id, offset, length })?)
    }

    /// Reads a blob that is UTF-8 text.
    #[rhai_fn(return_raw)]
    pub fn text(object: ObjectRef) -> Called<String> {
        let content = get(object)?;
        String::from_utf8(content).map_err(|error| format!("{}: {error}", object.id).into())
    }

    /// Returns the size of a blob in bytes.
    #[rhai_fn(return_raw)]
    pub fn size(object: ObjectRef) -> Called<i64> {
        match ask(Operation::Size(object.id))? {
            Answer::Size(size) => i64::try_from(size).map_err(|error| error.to_string().into()),
            _ => unexpected(),
        }
    }

    /// Stores a blob.
    #[rhai_fn(return_raw, name = "put")]
    pub fn put_blob(content: Blob) -> Called<ObjectRef> {
        stored(Operation::PutBlob(content.into())).map(ObjectRef::blob)
    }

    /// Stores a blob.
    #[rhai_fn(return_raw, name = "put")]
    pub fn put_text(content: &str) -> Called<ObjectRef> {
        stored(Operation::PutBlob(content.as_bytes().to_vec().into())).map(ObjectRef::blob)
    }

    /// Stores a tree. The values are objects.
    #[rhai_fn(return_raw, name = "put")]
    pub fn put_tree(entries: Map) -> Called<ObjectRef> {
        let entries = entries.into_iter().map(|(name, value)| {
            let object = object(value)?;
            Ok(TreeEntry::new(name.as_bytes(), EntryMode::plain(object.kind), object.id))
        });
        let entries = entries.collect::<Called<Vec<_>>>()?;
        stored(Operation::PutTree(entries)).map(ObjectRef::tree)
    }

    /// Runs an image.
    #[rhai_fn(return_raw)]
    pub fn run(image: &str, args: ObjectRef) -> Called<ObjectRef> {
        let call = Call { image: image.to_owned(), args: args.id };
        match ask(Operation::Run(call))? {
            Answer::Outcome(outcome) => Ok(outcome),
            _ => unexpected(),
        }
    }

    /// Runs an image for each of a list of arguments. Returns the outcomes in the same order. The
    /// first failure is an error.
    #[rhai_fn(return_raw)]
    pub fn run_many(image: &str, args: Array) -> Called<Array> {
        let call = |args| Ok(Call { image: image.to_owned(), args: object(args)?.id });
        let calls = args.into_iter().map(call).collect::<Called<Vec<_>>>()?;
        match ask(Operation::RunMany(calls))? {
            Answer::Outcomes(results) => {
                let outcome = |result: Result<_>| result.map(Dynamic::from).map_err(thrown);
                results.into_iter().map(outcome).collect()
            }
            _ => unexpected(),
        }
    }

    /// Returns `blob` or `tree`.
    #[rhai_fn(get = "kind", pure)]
    pub fn kind(object: &mut ObjectRef) -> String {
        object.kind.to_string()
    }

    /// Returns the id of an object, in hexadecimal.
    #[rhai_fn(get = "id", name = "to_string", name = "to_debug", pure)]
    pub fn id(object: &mut ObjectRef) -> String {
        object.id.to_string()
    }

    /// Returns the object with an id in hexadecimal.
    #[rhai_fn(return_raw, name = "object")]
    pub fn by_id(kind: &str, id: &str) -> Called<ObjectRef> {
        let id = ObjectId::from_hex(id).map_err(|error| error.to_string())?;
        match kind {
            "blob" => Ok(ObjectRef::blob(id)),
            "tree" => Ok(ObjectRef::tree(id)),
            _ => Err(format!("an object is a `blob` or a `tree`, not a `{kind}`").into()),
        }
    }

    #[rhai_fn(name = "==", pure)]
    pub fn equal(left: &mut ObjectRef, right: ObjectRef) -> bool {
        *left == right
    }

    #[rhai_fn(name = "!=", pure)]
    pub fn differ(left: &mut ObjectRef, right: ObjectRef) -> bool {
        *left != right
    }

    /// Replaces each `find` in a text by `by`. rhai's own function has no bound on the result's
    /// length, which can be the product of the lengths of its arguments.
    #[rhai_fn(return_raw)]
    pub fn replace(
        context: NativeCallContext<'_>,
        text: &mut ImmutableString,
        find: &str,
        by: &str,
    ) -> Called<()> {
        let length = text.len() + text.matches(find).count() * by.len();
        if length > context.engine().max_string_size() {
            let what = "Length of string".to_owned();
            return Err(EvalAltResult::ErrorDataTooLarge(what, Position::NONE).into());
        }
        *text = text.replace(find, by).into();
        Ok(())
    }

    #[rhai_fn(name = "replace", return_raw)]
    pub fn replace_char(
        context: NativeCallContext<'_>,
        text: &mut ImmutableString,
        find: char,
        by: &str,
    ) -> Called<()> {
        replace(context, text, find.encode_utf8(&mut [0; 4]), by)
    }
}
