//! Folds a directory through a dispatcher with a visitor in rhai.

use example_rhai_runtime::RhaiRuntime;
use manifold::native::NativeRuntime;
use manifold::{DirectoryObjects, Dispatcher, Error, Input, Invocation, Result};
use manifold_standard_guests::native_guests;

#[tokio::test]
async fn a_visitor_counts_the_words_of_a_directory() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("chapters/drafts")).unwrap();
    for (name, text) in [
        ("title.txt", "A short book"),
        ("chapters/1.txt", "It begins here"),
        ("chapters/drafts/2.txt", "and it\nends."),
        ("chapters/empty.txt", ""),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }

    let dispatcher = Dispatcher::builder().build()?;
    let native =
        dispatcher.add_runtime(native_guests(NativeRuntime::builder("n", "1")).build()?)?;
    let rhai = dispatcher.add_runtime(RhaiRuntime::new()?)?;
    let fold = dispatcher.install(native, "fold")?;
    let visitor = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/word-count.rhai");
    let word_count = dispatcher.install(rhai, Input::file(visitor))?;

    let fold = || async {
        let directory = DirectoryObjects::scan(folder.path()).map_err(Error::store)?;
        let root = directory.root();
        dispatcher.add_source(directory);
        let invocation = Invocation::new(fold).arg("in", root).arg("post", word_count.to_string());
        dispatcher.run(invocation).await
    };
    let first = fold().await?;
    assert_eq!(first.text()?, "9");
    let runs = dispatcher.stats().runs;
    assert!(fold().await?.from_memo);

    // A changed file is visited again, and so are the directories above it. Nothing else is.
    std::fs::write(folder.path().join("chapters/1.txt"), "It began").unwrap();
    assert_eq!(fold().await?.text()?, "8");
    let again = dispatcher.stats().runs - runs;
    assert_eq!(again, 5, "{again} runs");
    Ok(())
}
