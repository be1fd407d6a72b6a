//! `manifold node`, and the nodes that `fold` and `run` share work with.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use manifold_cache_reapi::CacheTier;
use manifold_dispatcher::{ObjectSource, Store};
use manifold_nodes::{Inputs, Node, NodeOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Node as Command, NodeArgs};
use crate::error::CliError;
use crate::patience::Phase;
use crate::repository::Repository;
use crate::say::{say, warn};
use crate::session::{Options, Session};

/// How long a command that ends early takes to leave the other nodes.
const FAREWELL: Duration = Duration::from_millis(600);

/// The node of this command.
static JOINED: OnceLock<Arc<Node>> = OnceLock::new();

impl NodeArgs {
    /// Returns the options of a node, if a server is named.
    fn options(&self) -> Option<NodeOptions> {
        let options = NodeOptions::new(self.servers.as_deref()?).pool(&self.pool);
        let options = options.patience(self.patience);
        Some(options.credentials(self.credentials.clone()).authority(self.authority.clone()))
    }

    /// Opens a session that shares its work with the other nodes, if a server is named, and its outcomes
    /// through `cache`. If the nodes cannot be joined, the work goes on without them.
    pub(crate) async fn session(
        &self,
        store: Arc<dyn Store>,
        cache: Option<CacheTier>,
        sources: Vec<Arc<dyn ObjectSource>>,
        mut settings: Options,
    ) -> Result<Session, CliError> {
        let options = self.options();
        if options.is_some() || cache.is_some() {
            settings.share_runs();
        }
        let mut session = Session::new(Arc::clone(&store), sources, &settings)?;
        session.share(cache);
        let Some(options) = options else { return Ok(session) };
        match Node::join(session.dispatcher.clone(), store, &options).await {
            Ok(node) => session.node = Some(Arc::clone(JOINED.get_or_init(|| Arc::new(node)))),
            Err(error) => warn(&format!("{error}; the work goes on without other nodes")),
        }
        Ok(session)
    }
}

impl Session {
    /// Formats what other nodes have done as a line. Empty if there are none.
    pub(crate) fn nodes_line(&self) -> String {
        let Some(node) = &self.node else { return String::new() };
        let (peers, arrived) = (node.peers(), self.dispatcher.stats().arrived);
        let nodes = if peers == 1 { "other node" } else { "other nodes" };
        format!("nodes   {peers} {nodes}, {arrived} outcomes came from them\n")
    }

    /// Leaves the other nodes.
    pub(crate) async fn leave(&self) {
        if let Some(node) = &self.node {
            node.leave().await;
        }
    }
}

/// `manifold node`.
pub(crate) async fn node(options: Command) -> Result<(), CliError> {
    let inputs = Inputs::new();
    let joins = options.nodes.options().ok_or(CliError::NoNats)?.helping(inputs.clone());
    let mut sources: Vec<Arc<dyn ObjectSource>> = Vec::new();
    for directory in &options.source {
        sources.push(Arc::new(Repository::named(directory)?.objects()?));
    }
    sources.push(Arc::new(inputs));
    let store = options.using.open()?;
    let mut settings = options.using.session();
    settings.share_runs();
    let session = Session::new(Arc::clone(&store), sources, &settings)?;
    Phase::Computing.begin();
    let node = Node::join(session.dispatcher.clone(), store, &joins).await?;
    let node = JOINED.get_or_init(|| Arc::new(node));
    say(&format!("node {} takes runs over; interrupt it to end it", node.session()));
    // An interrupt ends the command, too.
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => terminated.recv().await,
        Err(_) => std::future::pending().await,
    };
    Ok(())
}

/// Leaves the other nodes if the command has not done so: their units are given back at once.
pub(crate) async fn farewell() {
    if let Some(node) = JOINED.get() {
        let _ = tokio::time::timeout(FAREWELL, node.leave()).await;
    }
}
