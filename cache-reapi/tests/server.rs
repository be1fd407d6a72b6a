//! Outcomes that machines share through a real server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_cache_reapi::{CacheError, CacheOptions, Recorded, Sender, SharedCache};
use manifold_dispatcher::native::{NativeGuest, NativeRuntime, argument};
use manifold_dispatcher::{Dispatcher, Input, Invocation, MemoryStore, ObjectSource, Store};
use manifold_runtime_api::{Call, EntryMode, ObjectId, ObjectRef, Result};
use manifold_testing::buildgrid::BuildGrid;

/// A machine: a store of its own, and a dispatcher that records in it.
struct Machine {
    store: Arc<dyn Store>,
    recorded: Arc<Recorded>,
    dispatcher: Dispatcher,
    image: ObjectId,
}

impl Machine {
    fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let recorded = Arc::new(Recorded::new(Arc::clone(&store)));
        let guests = NativeRuntime::builder("joiner", "1").guest("join", join).build().unwrap();
        let dispatcher = Dispatcher::builder().store(Arc::clone(&recorded)).provenance(true);
        let dispatcher = dispatcher.build().unwrap();
        let host = dispatcher.add_runtime(guests).unwrap();
        let image = dispatcher.install(host, "join").unwrap();
        Self { store, recorded, dispatcher, image }
    }

    /// Runs the image on a tree of directories of files. Returns the request, the outcome, and how
    /// many frames ran.
    async fn run(&self, changed: &str) -> (ObjectId, ObjectRef, u64) {
        let file = |directory: usize, file: usize| -> Input {
            let content = format!("{directory} {file}\n");
            if (directory, file) == (2, 3) {
                format!("{content}{changed}").into()
            } else {
                content.into()
            }
        };
        let names: Vec<_> = (0..5).map(|number| format!("n{number}")).collect();
        let directory = |number: usize| {
            Input::tree(
                names.iter().enumerate().map(|(place, name)| (&**name, file(number, place))),
            )
        };
        let tree =
            Input::tree(names.iter().enumerate().map(|(place, name)| (&**name, directory(place))));
        let before = self.dispatcher.stats();
        let call = Invocation::new(self.image).arg("in", tree);
        let completion = self.dispatcher.run(call).await.unwrap();
        self.dispatcher.set_note(completion.request, "a path of this machine").unwrap();
        let runs = (self.dispatcher.stats() - before).runs;
        (completion.request, completion.outcome, runs)
    }
}

/// Returns a tree with the text of all files below a directory, and their number.
async fn join(guest: NativeGuest) -> Result<ObjectRef> {
    let input = guest.required("in").await?;
    if input.mode != EntryMode::Tree {
        return guest.blob(guest.text("in").await?.to_uppercase()).await;
    }
    let mut calls = Vec::new();
    for object in guest.host().tree(input.id).await?.objects() {
        let args = guest.put_tree([argument("in", object)]).await?;
        calls.push(Call { image: guest.job().image.to_string(), args });
    }
    let mut entries = Vec::new();
    for (number, result) in guest.host().run_many(calls).await.into_iter().enumerate() {
        entries.push(argument(&format!("r{number}"), result?));
    }
    Ok(ObjectRef::tree(guest.put_tree(entries).await?))
}

async fn connect(server: &BuildGrid, instance: &str) -> SharedCache {
    let options = CacheOptions::new(server.address(instance).parse().unwrap());
    SharedCache::connect(&options).await.unwrap()
}

/// Runs on a machine, and sends everything.
async fn run_and_send(machine: &Machine, cache: &SharedCache, name: &str) -> (ObjectId, ObjectRef) {
    let sender = Sender::start(cache.clone(), Arc::clone(&machine.recorded));
    let (request, outcome, runs) = machine.run("").await;
    assert_eq!(runs, 31, "the root, 5 directories and 25 files");
    let sent = sender.finish().await.unwrap();
    assert_eq!(sent.packs.len(), 1);
    cache.publish_ref(name, &sent.packs).await.unwrap();
    cache.publish(request, outcome, &machine.store).await.unwrap();
    (request, outcome)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_machine_gets_the_outcome_of_a_request() {
    let Some(server) = BuildGrid::start() else { return };
    let cache = connect(&server, "").await;
    assert!(cache.can_write());
    let one = Machine::new();
    let unknown = cache.fetch(ObjectId::empty_tree(), &one.store).await.unwrap();
    assert_eq!(unknown, None);
    let (request, outcome) = run_and_send(&one, &cache, "main").await;

    let other = Machine::new();
    assert_eq!(cache.fetch(request, &other.store).await.unwrap(), Some(outcome));
    assert_eq!(other.run("").await, (request, outcome, 0));
    let tree = other.dispatcher.read_tree(outcome.id).unwrap();
    let first = other.dispatcher.read_tree(tree.entries()[0].id).unwrap();
    let text = other.dispatcher.read(first.entries()[4].id).unwrap();
    assert_eq!(text.content, "0 4\n", "all objects of the outcome are there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_seeds_a_machine_that_runs_only_what_changed() {
    let Some(server) = BuildGrid::start() else { return };
    let cache = connect(&server, "").await;
    run_and_send(&Machine::new(), &cache, "main").await;

    let other = Machine::new();
    let seed = cache.fetch_ref("main", &other.store).await.unwrap().unwrap();
    assert_eq!((seed.packs.len(), seed.entries.len(), seed.new_entries), (1, 31, 31));
    assert_eq!((seed.bytes, seed.is_whole), (seed.packs[0].length(), true));
    let (changed, _, runs) = other.run("changed\n").await;
    assert_eq!(runs, 3, "the file, its directory and the root");
    // Records and notes of the first machine stay there.
    assert_eq!(other.dispatcher.provenances().unwrap().len(), 3);
    let (same, _, runs) = other.run("").await;
    assert_eq!(runs, 0);
    assert_ne!(changed, same);

    assert!(cache.fetch_ref("no such ref", &other.store).await.unwrap().is_none());
    let wrong = cache.fetch_ref("", &other.store).await;
    assert!(matches!(wrong, Err(CacheError::RefName { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_outcomes_go_in_streams() {
    let Some(server) = BuildGrid::start() else { return };
    let cache = connect(&server, "").await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    // Bytes that no compression makes smaller.
    let mut state = 1_u64;
    let noise = (0..9 << 20).map(|_| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 56) as u8
    });
    let object = manifold_runtime_api::Object::blob(noise.collect::<Vec<_>>());
    let outcome = ObjectRef::blob(store.write(object).unwrap());
    let request = ObjectId::empty_tree();
    cache.publish(request, outcome, &store).await.unwrap();
    let other: Arc<dyn Store> = Arc::new(MemoryStore::new());
    assert_eq!(cache.fetch(request, &other).await.unwrap(), Some(outcome));
    assert_eq!(other.size(outcome.id).unwrap(), Some(9 << 20));
}

/// What is too large for everybody is not sent.
#[tokio::test(flavor = "multi_thread")]
async fn very_large_outcomes_stay_where_they_are() {
    let Some(server) = BuildGrid::start() else { return };
    let cache = connect(&server, "").await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let large = manifold_runtime_api::Object::blob(vec![7; 65 << 20]);
    let large = ObjectRef::blob(store.write(large).unwrap());
    let small = ObjectRef::blob(store.write(manifold_runtime_api::Object::blob("small")).unwrap());
    let requests = [ObjectId::empty_tree(), small.id];
    let entries = vec![(requests[0], large), (requests[1], small)];
    let packs = cache.publish_entries(entries, &store).await.unwrap();
    cache.publish_ref("sizes", &packs).await.unwrap();
    let other: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let seed = cache.fetch_ref("sizes", &other).await.unwrap().unwrap();
    assert_eq!(seed.entries, [(requests[1], small)]);
    cache.publish(requests[0], large, &store).await.unwrap();
    assert_eq!(cache.fetch(requests[0], &other).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_results_says_so() {
    let Some(server) = BuildGrid::start() else { return };
    let cache = connect(&server, "readonly").await;
    assert!(!cache.can_write());
    let machine = Machine::new();
    let (request, outcome, _) = machine.run("").await;
    let refused = cache.publish(request, outcome, &machine.store).await.unwrap_err();
    assert!(matches!(refused, CacheError::Refused { .. }), "{refused}");
    let unknown = connect(&server, "").await.fetch(request, &machine.store).await.unwrap();
    assert_eq!(unknown, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_an_error_soon() {
    let Some(mut server) = BuildGrid::start() else { return };
    let cache = connect(&server, "").await;
    let machine = Machine::new();
    let sender = Sender::start(cache.clone(), Arc::clone(&machine.recorded));
    server.kill();
    let (request, _, _) = machine.run("").await;
    let start = Instant::now();
    let failed = sender.finish().await.unwrap_err();
    assert!(matches!(failed, CacheError::Refused { .. }), "{failed}");
    let failed = cache.fetch(request, &machine.store).await.unwrap_err();
    assert!(failed.to_string().contains("127.0.0.1"), "{failed}");
    let options = CacheOptions::new(server.address("").parse().unwrap());
    let failed = SharedCache::connect(&options).await.unwrap_err();
    assert!(matches!(failed, CacheError::Unreachable { .. }), "{failed}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
