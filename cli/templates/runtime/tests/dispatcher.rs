//! The runtime in a program, as its users have it.

use manifold::{Dispatcher, Invocation};
use {{crate}}::WordsRuntime;

#[tokio::test]
async fn a_guest_runs_once() -> manifold::Result<()> {
    let dispatcher = Dispatcher::builder().build()?;
    let words = dispatcher.add_runtime(WordsRuntime::new()?)?;
    let shout = dispatcher.install(words, "@in get upper")?;
    let first = dispatcher
        .run(Invocation::new(shout).arg("in", "hello"))
        .await?;
    assert_eq!(first.text()?, "HELLO");
    let second = dispatcher
        .run(Invocation::new(shout).arg("in", "hello"))
        .await?;
    assert!(second.from_memo);
    Ok(())
}
