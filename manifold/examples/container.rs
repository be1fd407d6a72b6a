//! Runs a guest in a container. Its image is in the store: a tree with a configuration and a
//! static program.
//!
//! Run it with `cargo run --example container --features docker,standard-guests`. It needs a
//! container engine at `DOCKER_HOST` or `/var/run/docker.sock`, and the programs that
//! `cargo xtask setup` builds. Without them it prints a line with the word SKIPPED.

use std::error::Error;

use manifold::docker::{ContainerEngine, DockerRuntime, EngineOptions, Mode};
use manifold::standard_guests::{self, CONTAINER_GUESTS};
use manifold::{Dispatcher, Input, Invocation, ObjectId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if CONTAINER_GUESTS.is_empty() {
        println!("SKIPPED: no programs for containers; run `cargo xtask setup` and build again");
        return Ok(());
    }
    let engine = ContainerEngine::new(EngineOptions::default())?;
    match engine.version().await {
        Ok(version) => println!("the container engine has the version {version}"),
        Err(error) => {
            println!("SKIPPED: no container engine responds: {error}");
            return Ok(());
        }
    }
    let result = count(&engine).await;
    // Containers are removed in the background. This waits for it.
    engine.close()?;
    result
}

async fn count(engine: &ContainerEngine) -> Result<(), Box<dyn Error>> {
    let runtime = DockerRuntime::builder().mode(Mode::Fresh).build(engine)?;
    let dispatcher = Dispatcher::builder().build()?;
    dispatcher.add_runtime(runtime)?;

    // The guests of every registered runtime, by name.
    let std = standard_guests::install(&dispatcher)?;
    // A visitor of `fold` gets a node and the results of its children.
    let children = Input::tree([("a", "2\n".into()), ("b", "3\n".into())]);
    let node = Input::tree([("a", "".into()), ("b", ObjectId::empty_tree().into())]);
    let invocation = Invocation::new("/cas/std/file-count.docker")
        .std(std)
        .arg("in", node)
        .arg("children", children);
    let answer = dispatcher.run(invocation.clone()).await?;
    println!("{}", answer.text()?.trim_end());
    assert_eq!(answer.text()?, "5\n");
    // The second time no container is started.
    assert!(dispatcher.run(invocation).await?.from_memo);
    Ok(())
}
