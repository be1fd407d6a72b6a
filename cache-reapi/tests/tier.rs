//! Calls of a dispatcher with a cache in memory that is slow, full, or gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use manifold_cache_reapi::{
    Answer, Backend, CacheError, CacheTier, Digest, Exchanged, Key, SharedCache, TierOptions, Value,
};
use manifold_dispatcher::native::{NativeGuest, NativeRuntime, argument};
use manifold_dispatcher::{Completion, Dispatcher, Input, Invocation, MemoryStore, Policy, Store};
use manifold_runtime_api::{Call, EntryMode, ObjectRef, Result};
use parking_lot::Mutex;

/// A cache in memory. Its clones have the same content.
#[derive(Debug, Clone, Default)]
struct Memory {
    content: Arc<Mutex<Content>>,
    is_full: bool,
    /// Whether no answer ever comes.
    hangs: bool,
    /// How long every answer takes.
    delay: Duration,
}

#[derive(Debug, Default)]
struct Content {
    values: HashMap<Key, Value>,
    blobs: HashMap<Digest, Vec<u8>>,
    /// How many values were set.
    sets: usize,
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
            if self.hangs {
                std::future::pending::<()>().await;
            }
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
            content.sets += values.len();
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
    failing: String,
    problems: Arc<Mutex<Vec<String>>>,
}

impl Machine {
    fn new(cache: &Memory, options: TierOptions) -> Self {
        Self::with(SharedCache::with_backend(cache.clone(), false), options, 2)
    }

    fn with(cache: SharedCache, options: TierOptions, permits: usize) -> Self {
        let problems = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&problems);
        let options = options.on_problem(move |error, _| seen.lock().push(error.in_a_line()));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (store, tier) = CacheTier::new(cache, options, store);
        let guests = NativeRuntime::builder("joiner", "1").guest("join", join);
        let failing = |guest: NativeGuest| async move {
            // What depends on a failure that may pass is not a function of the request.
            let nested = Call { image: "no image".to_owned(), args: guest.job().args };
            let failed = guest.host().run(nested).await.is_err();
            guest.blob(failed.to_string()).await
        };
        let guests = guests.guest("failing", failing).build().unwrap();
        let dispatcher =
            Dispatcher::builder().store(store).provenance(true).shares_runs(true).permits(permits);
        let dispatcher = dispatcher.build().unwrap();
        let host = dispatcher.add_runtime(guests).unwrap();
        let image = dispatcher.install(host, "join").unwrap().to_string();
        let failing = dispatcher.install(host, "failing").unwrap().to_string();
        Self { tier, dispatcher, image, failing, problems }
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
        let is_very_long = guest.text("in").await?.starts_with("very long");
        std::thread::sleep(if is_very_long { 10 * LEAF } else { LEAF });
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

/// A new call takes the outcomes of nested runs that another machine has sent.
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
    assert!(runs <= 11, "{runs} runs of 14, in {:?}", start.elapsed());
    let exchanged = other.finish().await;
    assert!(exchanged.found >= 3, "{exchanged:?}");
    let alone = Machine::new(&Memory::default(), TierOptions::default());
    let (expected, runs) = alone.run(&leaves).await;
    assert_eq!((expected.outcome, runs), (completion.outcome, 14));
    alone.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_waits_no_longer_for_a_slow_cache_than_its_head_start() {
    let cache = Memory::default().slow(Duration::from_secs(60));
    let machine = Machine::new(&cache, quick());
    let start = Instant::now();
    let (_, runs) = machine.run(&["a", "b", "c", "d"]).await;
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
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
    // Both the value and its pack are delayed.
    let other = Machine::new(&cache.slow(Duration::from_millis(300)), quick());
    let start = Instant::now();
    let (second, runs) = other.run(&leaves).await;
    assert_eq!(second.outcome, first.outcome);
    assert!(runs > 0 && runs < 50, "{runs} of 61 in {:?}", start.elapsed());
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

/// What is refused when it is sent can still be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_cache_is_still_read() {
    let cache = Memory::default();
    let one = Machine::new(&cache, TierOptions::default());
    one.run(&["a", "b"]).await;
    one.finish().await;
    let full = Memory { is_full: true, ..cache.clone() };
    let other = Machine::new(&full, TierOptions::default());
    other.run(&LEAVES).await;
    let (completion, _) = other.run(&["a", "b"]).await;
    assert!(completion.from_memo);
    assert!(other.finish().await.hit);
    assert_eq!(other.problems.lock().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cache_that_has_failed_is_not_waited_for_at_the_end() {
    let cache = Memory { hangs: true, ..Memory::default() };
    let options = quick().look_up_within(Duration::from_millis(300));
    let machine = Machine::new(&cache, options);
    machine.run(&LEAVES).await;
    let start = Instant::now();
    machine.finish().await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let problems = machine.problems.lock().clone();
    assert_eq!(problems, ["the cache memory takes longer than 300ms to look up a result"]);
}

/// More of them begin at once than look-ups do.
#[tokio::test(flavor = "multi_thread", worker_threads = 16)]
async fn every_run_that_takes_long_is_looked_up() {
    let cache = Memory::default();
    let leaves: Vec<_> = (0..12).map(|number| format!("very long {number}")).collect();
    let leaves: Vec<_> = leaves.iter().map(|leaf| &**leaf).collect();
    let one = Machine::with(SharedCache::with_backend(cache.clone(), false), quick(), 12);
    one.run(&leaves).await;
    one.finish().await;
    let sets = cache.content.lock().sets;
    assert!(sets >= 13, "{sets} results of 12 leaves and the root");
    let other = Machine::with(SharedCache::with_backend(cache.clone(), false), quick(), 12);
    other.run(&[&leaves[..], &["new"]].concat()).await;
    let found = other.finish().await.found;
    assert_eq!(found, 12);
    let sets = cache.content.lock().sets - sets;
    assert!(sets <= 2, "what was found is not sent again: {sets}");
}

/// A guest that goes on after a failure has an outcome that is not that of its request.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn outcomes_that_are_not_memoized_are_not_sent() {
    let cache = Memory::default();
    let machine = Machine::new(&cache, TierOptions::default());
    let call = Invocation::new(&machine.failing).arg("in", "text").policy(Policy::DoNotCache);
    let completion = machine.tier.run(&machine.dispatcher, call).await.unwrap();
    assert_eq!(completion.text().unwrap(), "true");
    assert_eq!(machine.finish().await.sent_packs, 0);
    assert!(cache.content.lock().values.is_empty());
}

/// A result that is malformed is a miss, and is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_damaged_result_does_not_end_the_cache() {
    let cache = Memory::default();
    let one = Machine::new(&cache, TierOptions::default());
    let (first, _) = one.run(&["a"]).await;
    one.finish().await;
    for blob in cache.content.lock().blobs.values_mut() {
        blob.truncate(20);
    }
    let other = Machine::new(&cache, TierOptions::default());
    let (second, runs) = other.run(&["a"]).await;
    assert_eq!((second.outcome, runs), (first.outcome, 2));
    assert!(other.finish().await.sent_packs > 0);
    assert_eq!(other.problems.lock().len(), 0);
    let third = Machine::new(&cache, TierOptions::default());
    assert!(third.run(&["a"]).await.0.from_memo);
}

/// Dropping the tier releases the store, even if the cache never answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tier_that_is_dropped_leaves_nothing_behind() {
    let cache = SharedCache::with_backend(Memory { hangs: true, ..Memory::default() }, false);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let weak = Arc::downgrade(&store);
    let options = quick().name("main").unwrap();
    let (store, tier) = CacheTier::new(cache, options, store);
    let dispatcher = Dispatcher::builder().store(store).shares_runs(true).build().unwrap();
    let guests = NativeRuntime::builder("joiner", "1").guest("join", join).build().unwrap();
    let host = dispatcher.add_runtime(guests).unwrap();
    let image = dispatcher.install(host, "join").unwrap();
    let call = Invocation::new(image).arg("in", "text");
    tier.run(&dispatcher, call).await.unwrap();
    drop((tier, dispatcher));
    let start = Instant::now();
    while weak.upgrade().is_some() {
        assert!(start.elapsed() < Duration::from_secs(5), "something holds the store");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
    let machine = Machine::with(reader, quick().name("main").unwrap(), 2);
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

/// A call that was given up and made again is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_succeeds_the_second_time_is_sent() {
    let cache = Memory::default();
    let machine = Machine::new(&cache, quick());
    let tree = Input::tree(LEAVES.map(|leaf| (leaf, Input::from(leaf.to_owned()))));
    let call = || Invocation::new(&machine.image).arg("in", tree.clone());
    let run = machine.tier.run(&machine.dispatcher, call());
    assert!(tokio::time::timeout(Duration::from_millis(100), run).await.is_err());
    // So that the run is seen to have ended.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let completion = machine.tier.run(&machine.dispatcher, call()).await.unwrap();
    machine.finish().await;
    let key = Key::Request(completion.request);
    assert!(cache.content.lock().values.contains_key(&key));
}

fn ref_named(name: &str) -> Key {
    Key::Ref(name.to_owned())
}

/// A ref that cannot be read counts as none.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_malformed_ref_is_replaced() {
    let cache = Memory::default();
    let packs = vec![Digest::of(b"pack"); 2000];
    let value = Value { packs, text: String::new() };
    cache.content.lock().values.insert(ref_named("main"), value);
    let one = Machine::new(&cache, TierOptions::default().name("main").unwrap());
    one.run(&["a"]).await;
    one.finish().await;
    assert_eq!(one.problems.lock().len(), 0);
    assert_eq!(cache.content.lock().values[&ref_named("main")].packs.len(), 1);
}

/// What was computed without the cache comes to the ref with the first call that has one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_ref_gets_what_was_known_before() {
    let cache = Memory::default();
    let options = || TierOptions::default().name("main").unwrap();
    let before = Machine::new(&cache, options());
    before.run(&["a"]).await;
    before.finish().await;
    let one = Machine::new(&cache, options());
    let call = Invocation::new(&one.image)
        .arg("in", Input::tree(["b", "c"].map(|leaf| (leaf, Input::from(leaf.to_owned())))));
    // Not through the tier.
    one.dispatcher.run(call.clone()).await.unwrap();
    let completion = one.tier.run(&one.dispatcher, call).await.unwrap();
    assert!(completion.from_memo);
    one.finish().await;
    let packs = cache.content.lock().values[&ref_named("main")].packs.clone();
    assert_eq!(packs.len(), 2);
    // Who only takes from it leaves it as it is.
    let other = Machine::new(&cache, options());
    let (_, runs) = other.run(&["b", "c", "d"]).await;
    assert_eq!(runs, 2, "d and the root");
    let third = Machine::new(&cache, options());
    third.run(&["b", "c"]).await;
    assert_eq!(third.finish().await.sent_packs, 0);
    assert_eq!(cache.content.lock().values[&ref_named("main")].packs, packs);
    other.finish().await;
}

/// The newest packs are kept if all together would be too large to be fetched.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_ref_is_bounded() {
    let cache = Memory::default();
    let digest = |number: usize| Digest::new(&format!("{number:064x}"), 10 << 20).unwrap();
    let value = Value { packs: (0..100).map(digest).collect(), text: String::new() };
    let machine = Machine::new(&cache, TierOptions::default().name("main").unwrap());
    machine.run(&["a"]).await;
    // Others set it meanwhile.
    machine.tier.wait().await;
    cache.content.lock().values.insert(ref_named("main"), value);
    machine.finish().await;
    let packs = cache.content.lock().values[&ref_named("main")].packs.clone();
    assert_eq!(packs[..packs.len() - 1], (75..100).map(digest).collect::<Vec<_>>());
}
