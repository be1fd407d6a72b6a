//! The objects that a run reads arrive when it reads them, and the others do not.

use manifold_dispatcher::api::{ObjectRef, Reason};
use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Invocation, ObjectSource};
use manifold_nodes::{Node, NodeError, NodeOptions};
use manifold_testing::nats::Nats;

use crate::machine::Machine;

/// Stores a tree of files at `machine`, each of 2,000 bytes and its number in zeros, and returns their ids
/// and that of the tree.
fn files(machine: &Machine, count: usize) -> (Vec<ObjectRef>, ObjectRef) {
    let mut rng = fastrand::Rng::with_seed(9);
    let files: Vec<_> = (0..count)
        .map(|number| {
            let content: Vec<u8> = (0..2_000).map(|_| rng.u8(..)).collect();
            let content = [content, vec![0; number]].concat();
            ObjectRef::blob(machine.fixture.dispatcher.put_blob(content).unwrap())
        })
        .collect();
    let entries: Vec<_> = files
        .iter()
        .enumerate()
        .map(|(number, file)| argument(format!("f{number:05}").as_str(), *file))
        .collect();
    let tree = machine.fixture.dispatcher.put_tree(entries).unwrap();
    (files, ObjectRef::tree(tree))
}

fn there(machine: &Machine, files: &[ObjectRef]) -> usize {
    files.iter().filter(|file| machine.store.read(file.id).unwrap().is_some()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn files_arrive_when_they_are_read() {
    let Some(server) = Nats::start() else { return };
    let (origin, helper) = (Machine::new(&server, false).await, Machine::new(&server, true).await);
    origin.has_peers(1).await;
    let (files, tree) = files(&origin, 6_000);
    // The first sixty files of twelve megabytes.
    let call = origin.all_with("reads", 60, 40, &tree.id.to_string());
    let outcome = origin.run(call).await.unwrap();
    assert_eq!(outcome.text().unwrap(), (60 * 2_000 + 59 * 60 / 2).to_string());
    assert!(helper.fixture.runs() > 10, "{}", helper.fixture.runs());
    assert!(origin.fixture.dispatcher.stats().arrived > 10);
    let arrived = there(&helper, &files);
    assert!((10..1_500).contains(&arrived), "{arrived} of {} files arrived", files.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_object_that_nobody_has_is_missing_as_on_one_node() {
    let Some(server) = Nats::start() else { return };
    let (origin, helper) = (Machine::new(&server, false).await, Machine::new(&server, true).await);
    origin.has_peers(1).await;
    let unknown = manifold_dispatcher::api::Object::blob("nowhere").id();
    let call = origin.all_with("reads", 20, 20, &unknown.to_string());
    let error = origin.run(call).await.unwrap_err();
    assert!(matches!(error.root_cause().reason(), Reason::MissingObject { id } if *id == unknown));
    drop(helper);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_larger_than_a_message_arrives_in_parts() {
    let Some(server) = Nats::start() else { return };
    let (origin, helper) = (Machine::new(&server, false).await, Machine::new(&server, true).await);
    origin.has_peers(1).await;
    let mut rng = fastrand::Rng::with_seed(10);
    let entries: Vec<_> = (0..12)
        .map(|number| {
            let content: Vec<u8> = (0..1_500_000).map(|_| rng.u8(..)).collect();
            let file = origin.fixture.dispatcher.put_blob(content).unwrap();
            argument(format!("f{number:02}").as_str(), ObjectRef::blob(file))
        })
        .collect();
    let tree = origin.fixture.dispatcher.put_tree(entries).unwrap();
    let call = origin.all_with("reads", 12, 400, &tree.to_string());
    assert_eq!(origin.run(call).await.unwrap().text().unwrap(), (12 * 1_500_000).to_string());
    assert!(origin.fixture.dispatcher.stats().arrived > 0);
    assert!(helper.fixture.runs() > 0);
}

#[tokio::test]
async fn a_node_that_helps_has_the_inputs_as_a_source() {
    let Some(server) = Nats::start() else { return };
    let dispatcher = manifold_dispatcher::Dispatcher::builder().build().unwrap();
    let options = NodeOptions::new(server.address()).helping(manifold_nodes::Inputs::new());
    let store = std::sync::Arc::new(manifold_dispatcher::MemoryStore::new());
    let error = Node::join(dispatcher.clone(), store, &options).await.unwrap_err();
    assert!(matches!(error, NodeError::Inputs), "{error}");
    // The dispatcher is as it was.
    assert!(dispatcher.run(Invocation::new("0".repeat(40))).await.is_err());
}
