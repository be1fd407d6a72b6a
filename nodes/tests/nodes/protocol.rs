//! What a node does when another one ends at any point of the protocol, or does not keep to it. The other
//! node is the test: it speaks to the server itself.

use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::{self, Context};
use manifold_dispatcher::api::{Object, ObjectId, ObjectRef};
use manifold_nodes::NodeOptions;
use manifold_pack::Pack;
use manifold_testing::nats::Nats;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::machine::{Machine, starts};

/// Another node.
struct Stranger {
    client: Client,
    context: Context,
    nodes: Store,
    claims: Store,
    memo: Store,
}

const SESSION: &str = "stranger";

impl Stranger {
    /// Joins after `machine` has created the buckets. Counts as alive for five seconds.
    async fn join(server: &Nats) -> Self {
        let client = async_nats::connect(server.address()).await.unwrap();
        let context = jetstream::new(client.clone());
        let bucket = async |name: &str| {
            context.get_key_value(format!("manifold-default-{name}")).await.unwrap()
        };
        let [nodes, claims, memo] =
            [bucket("nodes").await, bucket("claims").await, bucket("memo").await];
        let stranger = Self { client, context, nodes, claims, memo };
        stranger.lives().await;
        stranger
    }

    /// Says that it is alive.
    async fn lives(&self) {
        let presence = json!({ "hosts": [], "permits": 1 }).to_string();
        self.nodes.put(SESSION, presence.into()).await.unwrap();
    }

    /// Asks for runs until it gets one, and returns the message of the first.
    async fn steal(&self, machine: &Machine) -> Value {
        let host = machine.fixture.dispatcher.runtimes()[0].id().to_string();
        let steal = json!({ "session": SESSION, "hosts": [host] }).to_string();
        loop {
            let asked = self.client.request("manifold.default.steal", steal.clone().into()).await;
            let units = asked.ok().and_then(|answer| {
                serde_json::from_slice::<Value>(&answer.payload).ok()?.get("units").cloned()
            });
            if let Some(unit) = units.as_ref().and_then(|units| units.get(0)) {
                return unit.clone();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn claim(&self, unit: &Value) {
        self.claims.create(request(unit), SESSION.into()).await.unwrap();
    }

    /// Puts an outcome in the memo: the head of an entry, and a pack.
    async fn remember(&self, unit: &Value, outcome: ObjectId, pack: &[u8]) {
        let head = json!({
            "kind": "blob", "outcome": outcome.to_string(), "runs": 1, "written_bytes": 0,
            "micros": 1000, "pack": null,
        });
        let value = [head.to_string().as_bytes(), b"\n", pack].concat();
        self.memo.put(request(unit), value.into()).await.unwrap();
    }
}

fn request(unit: &Value) -> String {
    unit["request"].as_str().unwrap().to_owned()
}

/// Returns a pack with a blob, and the id of the blob.
fn pack(text: &str) -> (ObjectId, Vec<u8>) {
    let blob = Object::blob(text.to_owned());
    let id = blob.id();
    let mut pack = Pack::default();
    pack.objects.insert(id, blob);
    (id, pack.encode())
}

/// A call of one machine, of which the stranger has got a run: the `leaf` with the number of `unit`.
struct Scene {
    stranger: Stranger,
    machine: std::sync::Arc<Machine>,
    unit: Value,
    number: String,
    run: JoinHandle<String>,
    /// When the stranger got the run.
    got: Instant,
    _server: Nats,
}

impl Scene {
    async fn new() -> Option<Self> {
        Self::with(|options| options).await
    }

    async fn with(change: impl FnOnce(NodeOptions) -> NodeOptions) -> Option<Self> {
        let server = Nats::start()?;
        let machine = Machine::join(change(NodeOptions::new(server.address())), false).await;
        let machine = std::sync::Arc::new(machine);
        let stranger = Stranger::join(&server).await;
        machine.has_peers(1).await;
        let (caller, invocation) = (std::sync::Arc::clone(&machine), machine.all("leaf", 6, 300));
        let run =
            tokio::spawn(async move { caller.run(invocation).await.unwrap().text().unwrap() });
        let unit = stranger.steal(&machine).await;
        let args = ObjectId::from_hex(unit["args"].as_str().unwrap()).unwrap();
        let args = machine.fixture.dispatcher.read_tree(args).unwrap();
        let number = args.entries().iter().find(|entry| entry.name == "number").unwrap();
        let number = machine.fixture.text(ObjectRef::blob(number.id));
        let got = Instant::now();
        Some(Self { stranger, machine, unit, number, run, got, _server: server })
    }

    /// Waits until the call ends as if nobody had helped. Returns how long after the stranger had got its
    /// run.
    async fn ends_alone(self) -> Duration {
        assert_eq!(self.run.await.unwrap(), "15");
        assert_eq!(self.machine.fixture.dispatcher.stats().arrived, 0);
        self.got.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_dies_before_its_claim_is_waited_for_a_second() {
    let Some(scene) = Scene::new().await else { return };
    let time = scene.ends_alone().await;
    assert!(time < Duration::from_secs(4), "{time:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_dies_after_its_claim_is_waited_for_until_it_counts_as_dead() {
    let Some(scene) = Scene::new().await else { return };
    scene.stranger.claim(&scene.unit).await;
    let time = scene.ends_alone().await;
    assert!(time < Duration::from_secs(5 + 2 + 1), "{time:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_dies_between_the_objects_and_the_memo_leaves_nothing() {
    let Some(scene) = Scene::new().await else { return };
    scene.stranger.claim(&scene.unit).await;
    let packs = scene.stranger.context.get_object_store("manifold-default-packs").await.unwrap();
    let (_, pack) = pack(&scene.number);
    packs.put(request(&scene.unit).as_str(), &mut pack.as_slice()).await.unwrap();
    let time = scene.ends_alone().await;
    assert!(time < Duration::from_secs(5 + 2 + 1), "{time:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_outcome_is_found_although_nobody_says_that_it_is_there() {
    let Some(scene) = Scene::new().await else { return };
    scene.stranger.claim(&scene.unit).await;
    let (outcome, pack) = pack(&scene.number);
    scene.stranger.remember(&scene.unit, outcome, &pack).await;
    assert_eq!(scene.run.await.unwrap(), "15");
    assert_eq!(scene.machine.fixture.dispatcher.stats().arrived, 1);
    assert!(scene.got.elapsed() < Duration::from_secs(3), "{:?}", scene.got.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn entries_that_are_damaged_or_of_other_objects_are_refused() {
    let (id, whole) = pack("not at the machine");
    let (_, other) = pack("other");
    let middle = whole.len() / 2;
    let mut changed = whole.clone();
    changed[middle] ^= 4;
    for pack in [vec![], whole[..middle].to_vec(), changed, other] {
        let Some(scene) = Scene::new().await else { return };
        scene.stranger.claim(&scene.unit).await;
        scene.stranger.remember(&scene.unit, id, &pack).await;
        scene.ends_alone().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_is_busy_for_ever_is_waited_for_until_patience_ends() {
    let patience = Duration::from_secs(3);
    let Some(scene) = Scene::with(|options| options.patience(patience)).await else { return };
    let stranger = &scene.stranger;
    stranger.claim(&scene.unit).await;
    // It says that it is alive and busy.
    let mut asked = stranger.client.subscribe("manifold.default.waits.stranger").await.unwrap();
    let (client, nodes) = (stranger.client.clone(), stranger.nodes.clone());
    let lies = tokio::spawn(async move {
        loop {
            let answer = json!({ "is_busy": true, "is_away": false, "units": [] }).to_string();
            match tokio::time::timeout(
                Duration::from_secs(1),
                futures_util::StreamExt::next(&mut asked),
            )
            .await
            {
                Ok(Some(asked)) => {
                    client.publish(asked.reply.unwrap(), answer.into()).await.unwrap();
                }
                _ => {
                    let _ = nodes.put(SESSION, "{}".into()).await;
                }
            }
        }
    });
    let time = scene.ends_alone().await;
    assert!(time > patience && time < patience + Duration::from_secs(4), "{time:?}");
    lies.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_that_are_none_are_ignored() {
    let Some(scene) = Scene::new().await else { return };
    let session = scene.machine.node.session();
    for kind in ["obj", "waits", "done", "cancel"] {
        for message in ["", "{}", "null", "[1", "{\"request\": 1}", "{\"ids\": [\"x\"]}"] {
            let subject = format!("manifold.default.{kind}.{session}");
            scene.stranger.client.publish(subject, message.into()).await.unwrap();
        }
    }
    let steal = scene.stranger.client.publish("manifold.default.steal", "?".into());
    steal.await.unwrap();
    scene.ends_alone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_the_node_that_gave_a_run_away_can_cancel_it() {
    let Some(server) = Nats::start() else { return };
    let (origin, helper) = (Machine::new(&server, false).await, Machine::new(&server, true).await);
    origin.has_peers(1).await;
    let stranger = Stranger::join(&server).await;
    let session = helper.node.session().to_owned();
    let invocation = origin.all("leaf", 8, 300);
    let run = async { origin.run(invocation).await.unwrap().text().unwrap() };
    let cancel = async {
        for _ in 0..60 {
            let started = helper.fixture.journal.started.lock().unwrap().clone();
            for (request, _) in started {
                let subject = format!("manifold.default.cancel.{session}");
                let cancel = json!({ "request": request.to_string(), "origin": SESSION });
                stranger.client.publish(subject, cancel.to_string().into()).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (sum, ()) = tokio::join!(run, cancel);
    assert_eq!(sum, "28");
    assert!(origin.fixture.dispatcher.stats().arrived > 0);
    assert!(starts(&[&origin, &helper]).values().all(|count| *count == 1), "a run was cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_damaged_entry_is_replaced() {
    let Some(server) = Nats::start() else { return };
    let (first, second) = (Machine::new(&server, false).await, Machine::new(&server, false).await);
    let stranger = Stranger::join(&server).await;
    let call = |machine: &Machine| machine.all("leaf", 3, 1);
    let request = first.fixture.dispatcher.request(&call(&first)).unwrap();
    let (id, _) = pack("nowhere");
    for damaged in [&b"no head"[..], &b"\n"[..]] {
        stranger.memo.put(request.to_string(), damaged.to_vec().into()).await.unwrap();
    }
    stranger.remember(&json!({ "request": request.to_string() }), id, b"no pack").await;
    assert_eq!(first.run(call(&first)).await.unwrap().text().unwrap(), "3");
    first.node.leave().await;
    assert!(second.run(call(&second)).await.unwrap().from_memo);
    assert_eq!(second.fixture.runs(), 0);
}
