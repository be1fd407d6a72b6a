//! Keeps results in a file, finds them again after a restart, and collects what nothing keeps.
//!
//! Run it with `cargo run --example durable_store --features durable`.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use manifold::native::NativeRuntime;
use manifold::{Completion, Dispatcher, DurableStore, Invocation, Keep, Store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;

    // Every result is pinned, unless the invocation says otherwise.
    let pinned = {
        let dispatcher = dispatcher(DurableStore::open(directory.path())?)?;
        let pinned = shout(&dispatcher, "kept", true).await?;
        shout(&dispatcher, "dropped", false).await?;
        assert!(!pinned.from_memo);
        // Without `flush`, writes are committed some 200 ms later, and when the store is dropped.
        dispatcher.flush()?;
        pinned
    };

    // A later process finds both results.
    let store = Arc::new(DurableStore::open(directory.path())?);
    let dispatcher = dispatcher(Arc::clone(&store))?;
    assert!(shout(&dispatcher, "kept", true).await?.from_memo);
    assert!(shout(&dispatcher, "dropped", false).await?.from_memo);
    assert_eq!(dispatcher.pins()?.len(), 1);

    // A collection keeps what pins reach, and what was used or written lately. Here, only pins.
    let keep = Keep::default().used_within(Duration::ZERO).written_within(Duration::ZERO);
    let collected = store.collect(&keep, |_| ())?;
    println!(
        "kept {} objects and {} entries, removed {} objects and {} entries",
        collected.kept_objects,
        collected.kept_entries,
        collected.dropped_objects,
        collected.dropped_entries
    );
    assert_eq!((collected.kept_pins, collected.kept_entries), (1, 1));
    assert!(collected.dropped_entries >= 1);
    assert_eq!(dispatcher.look_up(pinned.request)?, Some(pinned.outcome));
    assert_eq!(pinned_text(&*store, &pinned)?, "KEPT");

    // What was removed is computed again when it is wanted.
    assert!(!shout(&dispatcher, "dropped", false).await?.from_memo);

    // Without its pin, the other result can be removed as well.
    assert!(dispatcher.unpin(pinned.request)?);
    store.collect(&keep, |_| ())?;
    assert_eq!(dispatcher.look_up(pinned.request)?, None);

    // Everything that is left has the id under which it is stored.
    assert!(store.verify(|_| ())?.damages.is_empty());
    Ok(())
}

fn dispatcher(store: impl Store) -> Result<Dispatcher, Box<dyn Error>> {
    let guests = NativeRuntime::builder("durable", "1").guest("shout", |guest| async move {
        guest.blob(guest.text("in").await?.to_uppercase()).await
    });
    Ok(Dispatcher::builder().store(store).runtime(guests.build()?).build()?)
}

async fn shout(
    dispatcher: &Dispatcher,
    text: &str,
    pin: bool,
) -> Result<Completion, Box<dyn Error>> {
    let host = dispatcher.runtimes()[0].id();
    let shout = dispatcher.install(host, "shout")?;
    let invocation = Invocation::new(shout).arg("in", text);
    Ok(dispatcher.run(if pin { invocation } else { invocation.unpinned() }).await?)
}

/// Reads a pinned outcome from the store alone.
fn pinned_text(store: &dyn Store, pinned: &Completion) -> Result<String, Box<dyn Error>> {
    let outcome = store.pinned(pinned.request)?.ok_or("the request is not pinned")?;
    let object = store.read(outcome.id)?.ok_or("the outcome is not in the store")?;
    Ok(String::from_utf8(object.content.to_vec())?)
}
