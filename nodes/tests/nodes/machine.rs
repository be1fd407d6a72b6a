//! [`Machine`]: a node in this process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use manifold_dispatcher::api::{Call, Error, ObjectId, ObjectRef};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Completion, Invocation, MemoryStore, Store};
use manifold_nodes::{Inputs, Node, NodeOptions};
use manifold_testing::nats::Nats;
use manifold_testing::{Fixture, HoldsPermits};

/// A node, with two permits unless the test says otherwise.
pub(crate) struct Machine {
    pub(crate) fixture: Fixture,
    pub(crate) node: Node,
    pub(crate) store: Arc<MemoryStore>,
}

fn runtime() -> HoldsPermits {
    let runtime = NativeRuntime::builder("native", "1")
        // Runs `leaf` for each of `count` numbers, and adds up what they return.
        .guest("all", |guest| async move {
            let count: u64 = guest.text("count").await?.parse().unwrap_or_default();
            let (image, millis) = (guest.text("leaf").await?, guest.text("millis").await?);
            let blob = |text: String| guest.host().put_blob(text.into());
            let millis = ObjectRef::blob(blob(millis).await?);
            let nested = ObjectRef::blob(blob(guest.text("nested").await?).await?);
            let mut calls = Vec::new();
            for number in 0..count {
                let number = ObjectRef::blob(blob(number.to_string()).await?);
                let args = [
                    argument("number", number),
                    argument("millis", millis),
                    argument("nested", nested),
                ];
                calls.push(Call { image: image.clone(), args: guest.put_tree(args).await? });
            }
            let mut sum = 0;
            for result in guest.host().run_many(calls).await {
                let number = guest.host().get(result?.id).await?;
                sum += String::from_utf8_lossy(&number).parse().unwrap_or(0);
            }
            guest.blob(sum.to_string()).await
        })
        // Runs three times `leaf`.
        .guest("group", |guest| async move {
            let number: u64 = guest.text("number").await?.parse().unwrap_or_default();
            let (image, millis) = (guest.text("nested").await?, guest.text("millis").await?);
            let millis = ObjectRef::blob(guest.host().put_blob(millis.into()).await?);
            for nested in 0..3 {
                let nested = guest.host().put_blob(format!("{}", number * 3 + nested).into());
                let number = ObjectRef::blob(nested.await?);
                let args = [argument("number", number), argument("millis", millis)];
                let args = guest.put_tree(args).await?;
                guest.host().run(Call { image: image.clone(), args }).await?;
            }
            guest.blob(number.to_string()).await
        })
        // Reads the file with its number in the tree whose id is a text, and returns its length.
        .guest("reads", |guest| async move {
            let number: usize = guest.text("number").await?.parse().unwrap_or_default();
            let (tree, millis) = (guest.text("nested").await?, guest.text("millis").await?);
            let tree = ObjectId::from_hex(&tree).unwrap();
            let tree = guest.host().tree(tree).await?;
            let file = guest.host().get(tree.entries()[number].id).await?;
            tokio::time::sleep(Duration::from_millis(millis.parse().unwrap_or_default())).await;
            guest.blob(file.len().to_string()).await
        })
        .guest("leaf", |guest| async move {
            let millis = guest.text("millis").await?.parse().unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(millis)).await;
            guest.blob(guest.text("number").await?).await
        })
        // Sleeps, then runs `ring` with the arguments exchanged.
        .guest("ring", |guest| async move {
            let (here, there) = (guest.text("here").await?, guest.text("there").await?);
            tokio::time::sleep(Duration::from_millis(300)).await;
            let blob = |text: String| guest.host().put_blob(text.into());
            let args = [
                argument("here", ObjectRef::blob(blob(there).await?)),
                argument("there", ObjectRef::blob(blob(here).await?)),
            ];
            let args = guest.put_tree(args).await?;
            guest.host().run(Call { image: guest.job().image.to_string(), args }).await
        })
        // Runs `graph` for the nodes that this one names, and adds up what they return and its number.
        .guest("graph", |guest| async move {
            let (graph, index) = (guest.text("graph").await?, guest.text("index").await?);
            let line = graph.lines().nth(index.parse().unwrap_or_default()).unwrap_or_default();
            let (millis, below) = line.split_once(':').unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(millis.parse().unwrap_or_default())).await;
            let image = guest.job().image.to_string();
            let graph = ObjectRef::blob(guest.host().put_blob(graph.clone().into()).await?);
            let mut calls = Vec::new();
            for below in below.split_whitespace() {
                let below = ObjectRef::blob(guest.host().put_blob(below.to_owned().into()).await?);
                let args = [argument("graph", graph), argument("index", below)];
                calls.push(Call { image: image.clone(), args: guest.put_tree(args).await? });
            }
            let mut sum: u64 = index.parse().unwrap_or_default();
            for result in guest.host().run_many(calls).await {
                let below = guest.host().get(result?.id).await?;
                let below = String::from_utf8_lossy(&below).parse().unwrap_or(0);
                sum = sum.wrapping_mul(3).wrapping_add(below);
            }
            guest.blob(sum.to_string()).await
        })
        // Keeps the permit of its node busy, and runs itself with a smaller `level` meanwhile.
        .guest("descend", |guest| async move {
            let level: u64 = guest.text("level").await?.parse().unwrap_or_default();
            if level == 0 {
                return guest.blob("0").await;
            }
            let (leaf, millis) = (guest.text("leaf").await?, guest.text("millis").await?);
            let blob = |text: String| guest.host().put_blob(text.into());
            let number = ObjectRef::blob(blob(format!("busy {level}")).await?);
            let millis = ObjectRef::blob(blob(millis).await?);
            let image = ObjectRef::blob(blob(leaf.clone()).await?);
            let below = ObjectRef::blob(blob((level - 1).to_string()).await?);
            let busy = [argument("number", number), argument("millis", millis)];
            let nested =
                [argument("level", below), argument("leaf", image), argument("millis", millis)];
            // A node begins the newest run first, and gives the oldest away.
            let calls = vec![
                Call { image: guest.job().image.to_string(), args: guest.put_tree(nested).await? },
                Call { image: leaf, args: guest.put_tree(busy).await? },
            ];
            let mut results = guest.host().run_many(calls).await;
            results.truncate(1);
            let below = results.pop().unwrap_or_else(|| Err(Error::guest_failed("no result")))?;
            let below = guest.host().get(below.id).await?;
            let below: u64 = String::from_utf8_lossy(&below).parse().unwrap_or_default();
            guest.blob((below + 1).to_string()).await
        })
        .guest("fail", |guest| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Err(Error::guest_failed(guest.text("number").await?))
        })
        .build()
        .unwrap();
    HoldsPermits(runtime)
}

impl Machine {
    pub(crate) async fn new(server: &Nats, helps: bool) -> Self {
        Self::join(NodeOptions::new(server.address()), helps).await
    }

    pub(crate) async fn join(options: NodeOptions, helps: bool) -> Self {
        Self::with(options, helps, 2).await
    }

    pub(crate) async fn with(options: NodeOptions, helps: bool, permits: usize) -> Self {
        let inputs = Inputs::new();
        let source = inputs.clone();
        let options = if helps { options.helping(inputs) } else { options };
        let store = Arc::new(MemoryStore::new());
        let fixture = Fixture::with(runtime(), |builder| {
            builder.store(Arc::clone(&store)).source(source).permits(permits).shares_runs(true)
        });
        let objects: Arc<dyn Store> = store.clone();
        let node = Node::join(fixture.dispatcher.clone(), objects, &options).await.unwrap();
        Self { fixture, node, store }
    }

    /// Runs `leaf` with each of the numbers below `count`, and adds up the results.
    pub(crate) fn all(&self, leaf: &str, count: u64, millis: u64) -> Invocation {
        self.all_with(leaf, count, millis, &self.fixture.image("leaf"))
    }

    /// As [`Machine::all`]; the runs get a further text.
    pub(crate) fn all_with(&self, leaf: &str, count: u64, millis: u64, nested: &str) -> Invocation {
        let leaf = self.fixture.image(leaf);
        let (count, millis) = (count.to_string(), millis.to_string());
        let args =
            [("leaf", leaf.as_str()), ("nested", nested), ("count", &count), ("millis", &millis)];
        Invocation::new(self.fixture.image("all")).args(self.fixture.args(&args))
    }

    pub(crate) fn ring(&self, here: &str, there: &str) -> Invocation {
        let args = self.fixture.args(&[("here", here), ("there", there)]);
        Invocation::new(self.fixture.image("ring")).args(args)
    }

    pub(crate) fn graph(&self, graph: &str, index: usize) -> Invocation {
        let args = self.fixture.args(&[("graph", graph), ("index", &index.to_string())]);
        Invocation::new(self.fixture.image("graph")).args(args)
    }

    /// Descends `level` levels. Something keeps the permit busy at each of them, so that the next one
    /// goes to another node.
    pub(crate) fn descend(&self, level: u64) -> Invocation {
        let leaf = self.fixture.image("leaf");
        let args = [("level", &*level.to_string()), ("leaf", &leaf), ("millis", "40")];
        Invocation::new(self.fixture.image("descend")).args(self.fixture.args(&args))
    }

    pub(crate) async fn run(&self, invocation: Invocation) -> Result<Completion, Error> {
        let run = self.node.run(invocation);
        tokio::time::timeout(Duration::from_secs(1200), run).await.expect("no timeout")
    }

    pub(crate) async fn has_peers(&self, count: usize) {
        while self.node.peers() != count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Returns how often each request was started, on all machines.
pub(crate) fn starts(machines: &[&Machine]) -> HashMap<ObjectId, usize> {
    let mut starts = HashMap::new();
    for machine in machines {
        for (request, _) in machine.fixture.journal.started.lock().unwrap().iter() {
            *starts.entry(*request).or_default() += 1;
        }
    }
    starts
}
