//! [`Machine`]: a node whose guests sleep, with a trace of what it runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use manifold_dispatcher::api::{Call, Error, ObjectId, ObjectRef};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Completion, Dispatcher, Invocation, MemoryStore};
use manifold_nodes::{Inputs, Node, NodeOptions};
use manifold_testing::HoldsPermits;
use manifold_trace::TraceFile;
use tokio::io::AsyncReadExt;

use crate::Failure;

/// How many files a node works on at once.
pub(crate) const PERMITS: usize = 8;

/// A node in this process.
pub(crate) struct Machine {
    pub(crate) dispatcher: Dispatcher,
    node: Option<Node>,
    trace: Arc<TraceFile>,
    host: ObjectId,
}

/// What is folded: directories with files, each of which takes some milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files {
    pub(crate) directories: u64,
    pub(crate) files: u64,
    /// A file takes no time at all if this is zero.
    pub(crate) millis: u64,
}

fn runtime() -> Result<HoldsPermits, Error> {
    let runtime = NativeRuntime::builder("native", "1")
        // Runs `file` or, with `directories`, itself for each number below `count`, and adds up.
        .guest("directory", |guest| async move {
            let number = |text: String| text.parse::<u64>().unwrap_or_default();
            let (name, directories) =
                (guest.text("name").await?, number(guest.text("directories").await?));
            let files = guest.text("files").await?;
            let (image, millis) = (guest.text("file").await?, guest.text("millis").await?);
            let blob = async |text: &str| {
                guest.host().put_blob(text.to_owned().into()).await.map(ObjectRef::blob)
            };
            let (none, many) = (blob("0").await?, blob(&files).await?);
            let (file, time) = (blob(&image).await?, blob(&millis).await?);
            let mut calls = Vec::new();
            let count = if directories > 0 { directories } else { number(files) };
            for child in 0..count {
                let mut args = vec![
                    argument("name", blob(&format!("{name}/{child}")).await?),
                    argument("millis", time),
                ];
                if directories > 0 {
                    args.push(argument("directories", none));
                    args.push(argument("files", many));
                    args.push(argument("file", file));
                }
                let args = guest.put_tree(args).await?;
                let image =
                    if directories > 0 { guest.job().image.to_string() } else { image.clone() };
                calls.push(Call { image, args });
            }
            let mut sum = 0;
            for result in guest.host().run_many(calls).await {
                let result = guest.host().get(result?.id).await?;
                sum += number(String::from_utf8_lossy(&result).into_owned());
            }
            guest.blob(sum.to_string()).await
        })
        .guest("file", |guest| async move {
            let (name, millis) = (guest.text("name").await?, guest.text("millis").await?);
            match millis.parse() {
                Ok(0) | Err(_) => {}
                Ok(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            }
            guest.blob(name.len().to_string()).await
        })
        .build()?;
    Ok(HoldsPermits(runtime))
}

impl Machine {
    /// Starts a node. Without an address it has no others.
    pub(crate) async fn start(
        address: Option<&str>,
        helps: bool,
        trace: &Path,
    ) -> Result<Self, Failure> {
        let (store, inputs) = (Arc::new(MemoryStore::new()), Inputs::new());
        let trace = Arc::new(TraceFile::create(trace)?);
        let runtime = runtime()?;
        let host = manifold_dispatcher::api::Runtime::host_image(&runtime).id();
        let dispatcher = Dispatcher::builder()
            .runtime(runtime)
            .store(Arc::clone(&store))
            .source(inputs.clone())
            .observer(Arc::clone(&trace))
            .permits(PERMITS)
            .shares_runs(address.is_some())
            .build()?;
        let node = match address {
            None => None,
            Some(address) => {
                let options = NodeOptions::new(address);
                let options = if helps { options.helping(inputs) } else { options };
                Some(Node::join(dispatcher.clone(), store, &options).await?)
            }
        };
        Ok(Self { dispatcher, node, trace, host })
    }

    /// Waits until there are so many other nodes.
    pub(crate) async fn meets(&self, count: usize) {
        while self.node.as_ref().is_some_and(|node| node.peers() != count) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn image(&self, guest: &str) -> Result<String, Error> {
        let module = ObjectRef::blob(self.dispatcher.put_blob(guest.to_owned())?);
        Ok(self.dispatcher.put_image(self.host, module)?.to_string())
    }

    /// Folds files. The salt keeps the call apart from others.
    pub(crate) async fn fold(&self, files: Files, salt: &str) -> Result<Completion, Failure> {
        let image = self.image("file")?;
        let Files { directories, files, millis } = files;
        let invocation = Invocation::new(self.image("directory")?)
            .arg("name", "")
            .arg("directories", directories.to_string().as_str())
            .arg("files", files.to_string().as_str())
            .arg("millis", millis.to_string().as_str())
            .arg("file", image.as_str())
            .salt(salt);
        let run = async {
            match &self.node {
                Some(node) => node.run(invocation).await,
                None => self.dispatcher.run(invocation).await,
            }
        };
        Ok(tokio::time::timeout(Duration::from_secs(300), run).await??)
    }

    /// Leaves the others, and ends the trace.
    pub(crate) async fn end(self) -> Result<(), Failure> {
        if let Some(node) = &self.node {
            node.leave().await;
        }
        Ok(self.trace.finish()?)
    }
}

/// The program of a node that helps, until its standard input ends.
pub(crate) async fn help(address: &str, trace: &Path) -> Result<(), Failure> {
    let machine = Machine::start(Some(address), true, trace).await?;
    println!("ready");
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    machine.end().await
}
