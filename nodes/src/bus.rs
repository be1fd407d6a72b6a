//! [`Bus`]: the connection to NATS, with the buckets that all nodes of a pool share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::kv;
use async_nats::jetstream::kv::{CreateErrorKind, EntryErrorKind, Operation, UpdateErrorKind};
use async_nats::jetstream::object_store::ObjectStore;
use async_nats::{Client, ConnectOptions, Event, ServerAddr, jetstream};
use manifold_runtime_api::ObjectId;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;

use crate::error::NodeError;
use crate::options::NodeOptions;

/// How long a node counts as alive after it was last heard of.
pub(crate) const TIME_TO_LIVE: Duration = Duration::from_secs(5);
/// How long outcomes and claims are kept on the server.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The connection to NATS, with the buckets that all nodes of a pool share.
pub(crate) struct Bus {
    pub(crate) client: Client,
    pub(crate) nodes: kv::Store,
    pub(crate) claims: kv::Store,
    pub(crate) memo: kv::Store,
    /// Packs that are too large for a value of the memo.
    pub(crate) packs: ObjectStore,
    /// The address, without passwords.
    pub(crate) address: String,
    pool: String,
    context: jetstream::Context,
    connected: Arc<Mutex<Connection>>,
}

/// Since when the connection is there, or is not.
struct Connection {
    is_there: bool,
    since: Instant,
    /// Since when JetStream has failed, although the connection may be there.
    fails_since: Option<Instant>,
    /// Whether the user was told that it is gone.
    was_told: bool,
}

/// Who has claimed a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) session: String,
    /// The revision of the claim, which the next claim has to name.
    pub(crate) revision: u64,
}

/// The result of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// The request is this node's.
    Mine,
    /// Another node has it.
    Theirs(Holder),
}

impl Bus {
    pub(crate) async fn connect(options: &NodeOptions) -> Result<Self, NodeError> {
        let pool = options.pool.clone();
        let is_name = (1..=64).contains(&pool.len())
            && pool.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !is_name {
            return Err(NodeError::Pool { name: pool });
        }
        let address = shown(&options.servers);
        let connected = Arc::new(Mutex::new(Connection {
            is_there: true,
            since: Instant::now(),
            fails_since: None,
            was_told: false,
        }));
        let mut connect = match &options.credentials {
            None => ConnectOptions::new(),
            Some(file) => ConnectOptions::with_credentials_file(file)
                .await
                .map_err(|source| NodeError::Credentials { file: file.clone(), source })?,
        };
        if let Some(file) = &options.authority {
            connect = connect.add_root_certificates(file.clone());
        }
        let events = Arc::clone(&connected);
        let connect = connect
            .name("manifold")
            .connection_timeout(Duration::from_secs(5))
            .request_timeout(Some(Duration::from_secs(2)))
            .ping_interval(Duration::from_secs(2))
            .reconnect_delay_callback(|attempt| {
                // The first attempt counts as one, and is made at once.
                let failed = attempt.saturating_sub(1).min(20);
                Duration::from_millis(100) * u32::try_from(failed).unwrap_or(20)
            })
            .event_callback(move |event| {
                let events = Arc::clone(&events);
                async move {
                    match event {
                        Event::Connected => events.lock().changes(true),
                        Event::Disconnected | Event::Closed => events.lock().changes(false),
                        _ => {}
                    }
                }
            });
        let problem = |problem: String| NodeError::Connect { address: address.clone(), problem };
        let servers = options.servers.split(',').map(|server| server.trim().parse::<ServerAddr>());
        let servers: Vec<ServerAddr> =
            servers.collect::<Result<_, _>>().map_err(|error| problem(error.to_string()))?;
        let connect = with_user(connect, &servers);
        let client =
            connect.connect(&servers[..]).await.map_err(|error| problem(error.to_string()))?;
        let context = jetstream::new(client.clone());
        let buckets = Buckets::open(&context, &pool).await.map_err(|error| {
            NodeError::JetStream { address: address.clone(), problem: error.to_string() }
        })?;
        let Buckets { nodes, claims, memo, packs } = buckets;
        Ok(Self { client, address, nodes, claims, memo, packs, pool, context, connected })
    }

    /// Returns the subject of the pool's messages of one kind, for one node or for all.
    pub(crate) fn subject(&self, kind: &str, session: Option<&str>) -> String {
        match session {
            Some(session) => format!("manifold.{}.{kind}.{session}", self.pool),
            None => format!("manifold.{}.{kind}", self.pool),
        }
    }

    /// Returns for how long the connection has been there. `None` if it is not.
    pub(crate) fn connected_for(&self) -> Option<Duration> {
        let connection = self.connected.lock();
        connection.is_there.then(|| connection.since.elapsed())
    }

    /// Returns whether the server has been away for so long that the work goes on without it. Says so
    /// once.
    pub(crate) fn is_lost(&self) -> bool {
        let mut connection = self.connected.lock();
        let away = (!connection.is_there).then_some(connection.since);
        let is_lost = away
            .into_iter()
            .chain(connection.fails_since)
            .any(|since| since.elapsed() > TIME_TO_LIVE);
        if is_lost && !std::mem::replace(&mut connection.was_told, true) {
            tracing::warn!("the NATS server is away; the work goes on without other nodes");
        }
        is_lost
    }

    /// Notes whether JetStream has answered, and returns the answer.
    pub(crate) fn noting<T, E>(&self, answer: Result<T, E>) -> Result<T, Unavailable> {
        let mut connection = self.connected.lock();
        match answer {
            Ok(answer) => {
                connection.fails_since = None;
                Ok(answer)
            }
            Err(_) => {
                connection.fails_since.get_or_insert_with(Instant::now);
                Err(Unavailable)
            }
        }
    }

    /// Creates the buckets again if the server has lost them.
    pub(crate) async fn reopen(&self) {
        let _ = Buckets::open(&self.context, &self.pool).await;
    }

    /// Waits until the server has been away for so long that the work goes on without it.
    pub(crate) async fn lost(&self) {
        while !self.is_lost() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Claims `request` for `session`. `known` is the claim that is to be replaced.
    pub(crate) async fn claim(
        &self,
        request: ObjectId,
        session: &str,
        known: Option<&Holder>,
    ) -> Result<Claimed, Unavailable> {
        let (key, value) = (request.to_string(), session.to_owned().into());
        let refused = match known {
            None => match self.claims.create(&key, value).await {
                Ok(_) => return Ok(Claimed::Mine),
                Err(error) => error.kind() == CreateErrorKind::AlreadyExists,
            },
            Some(holder) => match self.claims.update(&key, value, holder.revision).await {
                Ok(_) => return Ok(Claimed::Mine),
                Err(error) => error.kind() == UpdateErrorKind::WrongLastRevision,
            },
        };
        if !refused {
            return Err(Unavailable);
        }
        match self.holder(request).await? {
            Some(holder) if holder.session == session => Ok(Claimed::Mine),
            Some(holder) => Ok(Claimed::Theirs(holder)),
            // It was released just now.
            None => Err(Unavailable),
        }
    }

    /// Returns who has claimed `request`.
    pub(crate) async fn holder(&self, request: ObjectId) -> Result<Option<Holder>, Unavailable> {
        let entry = self.noting(self.claims.entry(request.to_string()).await)?;
        Ok(entry.filter(|entry| entry.operation == Operation::Put).map(|entry| Holder {
            session: String::from_utf8_lossy(&entry.value).chars().take(100).collect(),
            revision: entry.revision,
        }))
    }

    /// Gives up the claim of `session`.
    pub(crate) async fn release(&self, request: ObjectId, session: &str) {
        if let Ok(Some(holder)) = self.holder(request).await
            && holder.session == session
        {
            let key = request.to_string();
            let _ = self.claims.delete_expect_revision(key, Some(holder.revision)).await;
        }
    }

    /// Removes the node of a session from the nodes that are present.
    pub(crate) async fn depart(&self, session: &str) {
        // A deleted entry would still count as a node until its time to live is over.
        let subject = format!("{}{session}", self.nodes.prefix);
        let _ = self.nodes.stream.purge().filter(subject).await;
    }

    /// Returns whether the node of a session is known to be dead: it has not been heard of for its time
    /// to live, and neither was the server away.
    pub(crate) async fn is_dead(&self, session: &str) -> bool {
        let long_enough = |bus: &Self| bus.connected_for().is_some_and(|time| time > TIME_TO_LIVE);
        if !long_enough(self) {
            return false;
        }
        let is_gone = match self.nodes.entry(session).await {
            Ok(entry) => entry.is_none_or(|entry| entry.operation != Operation::Put),
            // No node has such a name.
            Err(error) => error.kind() == EntryErrorKind::InvalidKey,
        };
        is_gone && long_enough(self)
    }
}

/// The server did not answer, or an answer was lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unavailable;

impl Connection {
    fn changes(&mut self, is_there: bool) {
        if self.is_there != is_there {
            (self.is_there, self.since) = (is_there, Instant::now());
        }
        if is_there && std::mem::take(&mut self.was_told) {
            tracing::info!("the NATS server is back");
        }
    }
}

/// The buckets of a pool.
struct Buckets {
    nodes: kv::Store,
    claims: kv::Store,
    memo: kv::Store,
    packs: ObjectStore,
}

impl Buckets {
    /// Opens the buckets, and creates those that are missing: with three replicas if the server is one
    /// of a cluster.
    async fn open(context: &jetstream::Context, pool: &str) -> Result<Self, Failure> {
        let bucket = |what: &str, max_age: Duration| {
            open(context, format!("manifold-{pool}-{what}"), max_age)
        };
        let nodes = bucket("nodes", TIME_TO_LIVE).await?;
        let claims = bucket("claims", KEPT).await?;
        let memo = bucket("memo", KEPT).await?;
        let packs = open_packs(context, format!("manifold-{pool}-packs")).await?;
        Ok(Self { nodes, claims, memo, packs })
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Returns with how many replicas a bucket is created: what is tried first, and then. A cluster can have
/// fewer than three servers.
fn replicas(context: &jetstream::Context) -> &'static [usize] {
    if context.client().server_info().cluster.is_some() { &[3, 1] } else { &[1] }
}

// Without a bound on the size of the buckets: the server would reserve as much.

async fn open(
    context: &jetstream::Context,
    bucket: String,
    max_age: Duration,
) -> Result<kv::Store, Failure> {
    if let Ok(store) = context.get_key_value(&bucket).await {
        return Ok(store);
    }
    let mut failure = None;
    for &num_replicas in replicas(context) {
        let (bucket, history) = (bucket.clone(), 1);
        let config = kv::Config { bucket, max_age, history, num_replicas, ..kv::Config::default() };
        match context.create_key_value(config).await {
            Ok(store) => return Ok(store),
            Err(error) => failure = Some(error),
        }
    }
    // Another node may have created it in the meantime.
    context.get_key_value(&bucket).await.map_err(|error| match failure {
        Some(failure) => failure.into(),
        None => error.into(),
    })
}

async fn open_packs(context: &jetstream::Context, bucket: String) -> Result<ObjectStore, Failure> {
    if let Ok(packs) = context.get_object_store(&bucket).await {
        return Ok(packs);
    }
    let mut failure = None;
    for &num_replicas in replicas(context) {
        let config = jetstream::object_store::Config {
            bucket: bucket.clone(),
            max_age: KEPT,
            num_replicas,
            ..jetstream::object_store::Config::default()
        };
        match context.create_object_store(config).await {
            Ok(packs) => return Ok(packs),
            Err(error) => failure = Some(error),
        }
    }
    context.get_object_store(&bucket).await.map_err(|error| match failure {
        Some(failure) => failure.into(),
        None => error.into(),
    })
}

/// Adds the name and password, or the token, of the first address that has any: the library does not read
/// them from there.
fn with_user(options: ConnectOptions, servers: &[ServerAddr]) -> ConnectOptions {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    match servers.iter().find_map(|server| Some((server.username()?, server.password()))) {
        Some((name, Some(password))) => options.user_and_password(decoded(name), decoded(password)),
        Some((token, None)) => options.token(decoded(token)),
        None => options,
    }
}

/// Returns an address without names and passwords.
fn shown(servers: &str) -> String {
    let hosts = servers.split(',').map(|server| match server.rsplit_once('@') {
        Some((_, host)) => host.trim().to_owned(),
        None => server.trim().to_owned(),
    });
    hosts.collect::<Vec<_>>().join(",")
}
