//! Counts the words of all files below a directory. A second call takes its result from the memo,
//! and after one file has changed, only what depends on that file is computed.
//!
//! Run it with `cargo run --example embed`.

use std::error::Error;
use std::fs;

use manifold::native::{NativeGuest, NativeRuntime, argument};
use manifold::{
    Call, Completion, DirectoryObjects, Dispatcher, EntryMode, Input, Invocation, ObjectId,
    ObjectRef,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let guests = NativeRuntime::builder("embed", "1").guest("words", words).build()?;
    let dispatcher = Dispatcher::builder().build()?;
    let host = dispatcher.add_runtime(guests)?;
    let words = dispatcher.install(host, "words")?;

    // An argument can be text, bytes, a file or a tree of those.
    let text = dispatcher.run(Invocation::new(words).arg("in", "to be or not")).await?;
    assert_eq!(text.text()?, "4");
    let tree = Input::tree([("a.txt", "one two".into()), ("b.txt", "three".into())]);
    let tree = dispatcher.run(Invocation::new(words).arg("in", tree)).await?;
    assert_eq!(tree.text()?, "3");

    // A directory is hashed once. Its files are read when a guest reads them.
    let directory = tempfile::tempdir()?;
    fs::create_dir(directory.path().join("letters"))?;
    fs::write(directory.path().join("letters/first.txt"), "dear reader")?;
    fs::write(directory.path().join("poem.txt"), "roses are red")?;

    let cold = count(&dispatcher, words, &directory).await?;
    println!("cold: {} words", cold.text()?);
    assert_eq!(cold.text()?, "5");
    assert!(!cold.from_memo);
    assert!(count(&dispatcher, words, &directory).await?.from_memo);

    fs::write(directory.path().join("poem.txt"), "roses are red, violets are blue")?;
    let before = dispatcher.stats();
    let changed = count(&dispatcher, words, &directory).await?;
    let work = dispatcher.stats() - before;
    println!("changed: {} words, {} runs, {} memo hits", changed.text()?, work.runs, work.hits);
    assert_eq!(changed.text()?, "8");
    // The file and the root were computed. `letters` came from the memo.
    assert_eq!((work.runs, work.hits), (2, 1));
    Ok(())
}

/// Hashes `directory` and counts its words.
async fn count(
    dispatcher: &Dispatcher,
    words: ObjectId,
    directory: &tempfile::TempDir,
) -> Result<Completion, Box<dyn Error>> {
    let objects = DirectoryObjects::scan(directory.path())?;
    let root = objects.root();
    dispatcher.add_source(objects);
    Ok(dispatcher.run(Invocation::new(words).arg("in", root)).await?)
}

/// The guest: counts the words of a blob, or runs itself for every entry of a tree and adds up the
/// results.
async fn words(guest: NativeGuest) -> manifold::Result<ObjectRef> {
    let input = guest.required("in").await?;
    if input.mode != EntryMode::Tree {
        let words = guest.text("in").await?.split_whitespace().count();
        return guest.blob(words.to_string()).await;
    }
    let mut calls = Vec::new();
    for object in guest.host().tree(input.id).await?.objects() {
        let args = guest.put_tree([argument("in", object)]).await?;
        calls.push(Call { image: guest.job().image.to_string(), args });
    }
    let mut total = 0;
    for result in guest.host().run_many(calls).await {
        let text = guest.host().get(result?.id).await?;
        total += String::from_utf8_lossy(&text).parse::<u64>().unwrap_or_default();
    }
    guest.blob(total.to_string()).await
}
