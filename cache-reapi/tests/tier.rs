//! Calls of a dispatcher with a cache in memory that is slow, full, or gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use manifold_cache_reapi::{
    Answer, Backend, CacheError, CacheTier, Digest, Exchanged, Key, SharedCache, TierOptions, Value,
};
use manifold_dispatcher::native::{NativeGuest, NativeRuntime, argument};
use manifold_dispatcher::{Completion, Dispatcher, Input, Invocation, MemoryStore, Store};
use manifold_runtime_api::{Call, EntryMode, ObjectRef, Result};
use parking_lot::Mutex;

/// A cache in memory. Its clones have the same content.
#[derive(Debug, Clone, Default)]
struct Memory {
    content: Arc<Mutex<Content>>,
    is_full: bool,
    /// How long every answer takes.
    delay: Duration,
}

#[derive(Debug, Default)]
struct Content {
    values: HashMap<Key, Value>,
    blobs: HashMap<Digest, Vec<u8>>,
}

impl Memory {
    fn slow(&self, delay: Duration) -> Self {
        Self { delay, ..self.clone() }
    }

    fn answer<'a, T: Send + 'a>(
        &'a self,
        answer: impl FnOnce(&mut Content) -> std::result::Result<T, CacheError> + Send + 'a,
    ) -> Answer<'a, T> {
        let answer = async move {
            tokio::time::sleep(self.delay).await;
            answer(&mut self.content.lock())
        };
        answer.boxed()
    }

    fn check_room(&self) -> std::result::Result<(), CacheError> {
        let (address, operation) = (self.address().to_owned(), "accept blobs");
        let source = "the disk is full".into();
        if self.is_full { Err(CacheError::Failed { address, operation, source }) } else { Ok(()) }
    }
}

impl Backend for Memory {
    fn address(&self) -> &str {
        "memory"
    }

    fn accepts_results(&self) -> bool {
        true
    }

    fn value<'a>(&'a self, key: &'a Key) -> Answer<'a, Option<Value>> {
        self.answer(move |content| Ok(content.values.get(key).cloned()))
    }

    fn set_values(&self, values: Vec<(Key, Value)>) -> Answer<'_, ()> {
        self.answer(move |content| {
            self.check_room()?;
            for (_, value) in &values {
                assert!(value.packs.iter().all(|pack| content.blobs.contains_key(pack)));
            }
            content.values.extend(values);
            Ok(())
        })
    }

    fn blob<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<Vec<u8>>> {
        self.answer(move |content| Ok(content.blobs.get(digest).cloned()))
    }

    fn add_blobs(&self, blobs: Vec<Vec<u8>>) -> Answer<'_, ()> {
        self.answer(move |content| {
            self.check_room()?;
            content.blobs.extend(blobs.into_iter().map(|blob| (Digest::of(&blob), blob)));
            Ok(())
        })
    }
}

/// How long a leaf takes.
const LEAF: Duration = Duration::from_millis(100);

/// A machine with a store of its own.
struct Machine {
    tier: CacheTier,
    dispatcher: Dispatcher,
    image: String,
    problems: Arc<Mutex<Vec<String>>>,
}

impl Machine {
    fn new(cache: &Memory, options: TierOptions) -> Self {
        Self::with(SharedCache::with_backend(cache.clone(), false), options)
    }

    fn with(cache: SharedCache, options: TierOptions) -> Self {
        let problems = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&problems);
        let options = options.on_problem(move |error| seen.lock().push(error.in_a_line()));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (store, tier) = CacheTier::new(cache, options, store);
        let guests = NativeRuntime::builder("joiner", "1").guest("join", join).build().unwrap();
        let dispatcher =
            Dispatcher::builder().store(store).provenance(true).shares_runs(true).permits(2);
        let dispatcher = dispatcher.build().unwrap();
        let host = dispatcher.add_runtime(guests).unwrap();
        let image = dispatcher.install(host, "join").unwrap().to_string();
        Self { tier, dispatcher, image, problems }
    }

    /// Runs the image on a tree of leaves. Returns also how many frames ran.
    async fn run(&self, leaves: &[&str]) -> (Completion, u64) {
        let before = self.dispatcher.stats().runs;
        let leaves = leaves.iter().map(|leaf| (*leaf, Input::from((*leaf).to_owned())));
        let call = Invocation::new(&self.image).arg("in", Input::tree(leaves));
        let completion = self.tier.run(&self.dispatcher, call).await.unwrap();
        (completion, self.dispatcher.stats().runs - before)
    }

    async fn finish(&self) -> Exchanged {
        self.tier.finish(&self.dispatcher, Duration::from_secs(20)).await
    }
}

/// Returns a blob in upper case after a while, and for a tree the results for its entries.
async fn join(guest: NativeGuest) -> Result<ObjectRef> {
    let input = guest.required("in").await?;
    if input.mode != EntryMode::Tree {
        // A guest that waits would let others compute.
        std::thread::sleep(LEAF);
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

fn quick() -> TierOptions {
    TierOptions::default().head_start(Duration::from_millis(50))
}

const LEAVES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_is_a_hit_on_another_machine() {
    let cache = Memory::default();
    let one = Machine::new(&cache, TierOptions::default());
    let (first, runs) = one.run(&["a", "b"]).await;
    assert_eq!((first.from_memo, runs), (false, 3));
    assert!(!one.finish().await.hit);
    let other = Machine::new(&cache, TierOptions::default());
    let (second, runs) = other.run(&["a", "b"]).await;
    assert_eq!((second.from_memo, runs, second.outcome), (true, 0, first.outcome));
    let exchanged = other.finish().await;
    assert!(exchanged.hit && exchanged.sent_packs == 0, "{exchanged:?}");
}

/// A call that nobody has made finds the runs below it that another machine has run.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn runs_below_a_call_are_found_while_they_wait() {
    let cache = Memory::default();
    let one = Machine::new(&cache, TierOptions::default());
    one.run(&LEAVES).await;
    one.finish().await;
    let other = Machine::new(&cache, TierOptions::default());
    let leaves = [&LEAVES[..], &["new"]].concat();
    let start = Instant::now();
    let (completion, runs) = other.run(&leaves).await;
    // Two run before it is clear that they take long, and may end before they are looked up.
    assert!(runs <= 8, "{runs} runs of 14, in {:?}", start.elapsed());
    let exchanged = other.finish().await;
    assert!(exchanged.found >= 6, "{exchanged:?}");
    let alone = Machine::new(&Memory::default(), TierOptions::default());
    let (expected, runs) = alone.run(&leaves).await;
    assert_eq!((expected.outcome, runs), (completion.outcome, 14));
    alone.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_waits_no_longer_for_a_slow_cache_than_its_head_start() {
    let cache = Memory::default().slow(Duration::from_secs(3));
    let machine = Machine::new(&cache, quick());
    let start = Instant::now();
    let (_, runs) = machine.run(&["a", "b", "c", "d"]).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(runs, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_outcome_that_arrives_late_ends_the_run() {
    let cache = Memory::default();
    let leaves: Vec<_> = (0..60).map(|number| format!("leaf {number}")).collect();
    let leaves: Vec<_> = leaves.iter().map(|leaf| &**leaf).collect();
    let one = Machine::new(&cache, TierOptions::default());
    let (first, _) = one.run(&leaves).await;
    one.finish().await;
    // Two answers, for the value and its pack.
    let other = Machine::new(&cache.slow(Duration::from_millis(300)), quick());
    let start = Instant::now();
    let (second, runs) = other.run(&leaves).await;
    assert_eq!(second.outcome, first.outcome);
    assert!(runs > 0 && runs < 30, "{runs} of 61 in {:?}", start.elapsed());
    assert!(second.from_memo);
    assert!(other.finish().await.hit);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cache_that_fails_is_one_problem_and_the_work_goes_on() {
    let cache = Memory { is_full: true, ..Memory::default() };
    let machine = Machine::new(&cache, quick().name("main").unwrap());
    let (_, runs) = machine.run(&LEAVES).await;
    assert_eq!(runs, 13);
    machine.run(&["x"]).await;
    machine.finish().await;
    let problems = machine.problems.lock().clone();
    assert_eq!(problems, ["the cache memory failed to accept blobs: the disk is full"]);
    assert!(cache.content.lock().values.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_end_does_not_wait_for_a_slow_cache_for_ever() {
    let cache = Memory::default();
    let machine = Machine::new(&cache.slow(Duration::from_millis(200)), quick());
    machine.run(&["a"]).await;
    let start = Instant::now();
    machine.tier.finish(&machine.dispatcher, Duration::from_millis(100)).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let problems = machine.problems.lock().clone();
    assert!(problems.len() == 1 && problems[0].contains("takes longer than"), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_only_reads_sends_nothing() {
    let cache = Memory::default();
    let reader = SharedCache::with_backend(cache.clone(), true);
    let machine = Machine::with(reader, quick().name("main").unwrap());
    machine.run(&LEAVES).await;
    assert_eq!(machine.finish().await.sent_packs, 0);
    let content = cache.content.lock();
    assert!(content.values.is_empty() && content.blobs.is_empty());
}

/// Both begin with what the ref has, and both give it something else.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_machines_that_set_one_ref_both_add_to_it() {
    let cache = Memory::default();
    let machine = || Machine::new(&cache, TierOptions::default().name("main").unwrap());
    let before = machine();
    before.run(&["a"]).await;
    before.finish().await;
    let (one, two) = (machine(), machine());
    one.tier.wait().await;
    two.tier.wait().await;
    one.run(&["a", "one"]).await;
    two.run(&["a", "two"]).await;
    one.finish().await;
    two.finish().await;
    let after = machine();
    let (_, runs) = after.run(&["a", "one", "two"]).await;
    assert_eq!(runs, 1, "only the root is new");
    assert!(after.finish().await.seeded >= 6);
}

/// A server that removes blobs while it is used makes nothing wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_cache_removes_meanwhile_is_run() {
    let cache = Memory::default();
    let one = Machine::new(&cache, TierOptions::default().name("main").unwrap());
    let (first, _) = one.run(&LEAVES).await;
    one.finish().await;
    let removing = cache.clone();
    let task = tokio::spawn(async move {
        loop {
            let one = removing.content.lock().blobs.keys().next().cloned();
            one.into_iter().for_each(|one| drop(removing.content.lock().blobs.remove(&one)));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let other = Machine::new(&cache, quick().name("main").unwrap());
    let (second, _) = other.run(&LEAVES).await;
    task.abort();
    assert_eq!(second.outcome, first.outcome);
    assert_eq!(other.problems.lock().len(), 0);
}
