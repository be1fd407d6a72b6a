//! Guests in containers, by scenario.

mod hosts;
mod images;
mod isolation;
mod misbehaving;
mod recovery;
mod removal;

use std::time::Duration;

use manifold_dispatcher::Invocation;
use manifold_runtime_api::{EntryMode, Error, Limits};
use manifold_testing::containers::ContainerFixture;

/// Runs `strange WORD` with low limits.
async fn misbehave(
    fixture: &ContainerFixture,
    word: &str,
    args: &[(&str, &str)],
) -> Result<String, Error> {
    let image = fixture.program("strange", &[word]);
    let entries = args.iter().map(|(name, text)| {
        let id = fixture.dispatcher.put_blob((*text).to_owned()).unwrap();
        manifold_runtime_api::TreeEntry::new(*name, EntryMode::Blob, id)
    });
    let args = fixture.dispatcher.put_tree(entries).unwrap();
    let mut limits = Limits::default();
    limits.compute_time = Duration::from_secs(2);
    limits.guest_request_bytes = 8 << 20;
    limits.memory_bytes = 64 << 20;
    let completion = fixture
        .dispatcher
        .run(Invocation::new(image).args(args).std(fixture.std).limits(limits))
        .await?;
    Ok(String::from_utf8_lossy(&fixture.dispatcher.read(completion.outcome.id)?.content)
        .into_owned())
}
