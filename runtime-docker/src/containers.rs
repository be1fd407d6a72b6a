//! The containers of one runtime: how jobs get them, and those that wait for jobs.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use manifold_runtime_api::Result;
use parking_lot::Mutex;

use crate::engine::{EngineError, Launched, Roster};
use crate::pool::Pool;
use crate::serving::{Assignment, Servers};
use crate::spec::Spec;

/// How a job gets its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// A container is created for the job and removed before the job ends. This is the baseline
    /// without any optimization.
    Fresh,
    /// A container that was started in advance is used for one job and then removed.
    #[default]
    Parked,
    /// One container serves many jobs and forks a process for each.
    Serving,
}

/// The containers of a runtime, by [`Spec`].
pub(crate) struct Containers {
    roster: Arc<Roster>,
    mode: Mode,
    /// How many containers of a spec are parked.
    parked: usize,
    pools: Mutex<HashMap<Spec, Arc<Pool>>>,
    servers: Mutex<HashMap<Spec, Arc<Servers>>>,
}

impl Containers {
    pub(crate) fn new(roster: Arc<Roster>, mode: Mode, parked: usize) -> Self {
        Self { roster, mode, parked, pools: Mutex::default(), servers: Mutex::default() }
    }

    /// Returns whether a container of `spec` serves many jobs, and not one alone.
    pub(crate) fn serve_many_jobs(&self, spec: &Spec) -> bool {
        self.mode == Mode::Serving || spec.hosted.is_some()
    }

    /// Returns whether a job's container is removed before the job ends.
    pub(crate) fn are_removed_with_the_job(&self) -> bool {
        self.mode == Mode::Fresh
    }

    /// Starts containers that wait for jobs, if the mode has any.
    pub(crate) async fn warm(&self, spec: Spec) -> Result<()> {
        if self.serve_many_jobs(&spec) {
            self.servers(spec).warm().await?;
        } else if self.mode == Mode::Parked {
            self.pool(spec).refill();
        }
        Ok(())
    }

    /// Returns a container for one job.
    pub(crate) async fn take(&self, spec: &Spec) -> Launched {
        match self.mode {
            Mode::Fresh => self.roster.launch(spec.for_one_job()).await,
            Mode::Parked | Mode::Serving => self.pool(spec.clone()).take().await,
        }
    }

    /// Returns a job's share of a container that serves many.
    pub(crate) async fn take_share(&self, spec: &Spec) -> Result<Assignment, EngineError> {
        self.servers(spec.clone()).take().await
    }

    fn pool(&self, spec: Spec) -> Arc<Pool> {
        get_or_insert(&self.pools, spec, |spec| {
            Pool::new(Arc::clone(&self.roster), spec, self.parked)
        })
    }

    fn servers(&self, spec: Spec) -> Arc<Servers> {
        get_or_insert(&self.servers, spec, |spec| Servers::new(Arc::clone(&self.roster), spec))
    }

    /// Removes the parked containers, to make room for others.
    pub(crate) fn make_room(&self) {
        self.pools.lock().values().for_each(|pool| pool.clear());
    }

    /// Removes the containers that were unused for `idle`.
    pub(crate) fn remove_idle(&self, idle: Duration) {
        self.pools.lock().retain(|_, pool| !pool.is_idle(idle));
        self.servers.lock().retain(|_, servers| !servers.is_idle(idle));
    }

    /// Returns whether the engine could not be reached a moment ago.
    pub(crate) fn cannot_reach_the_engine(&self) -> bool {
        self.roster.client.connection_failure.check().is_err()
    }

    /// Removes the containers that wait for jobs, and waits up to `patience` for that.
    pub(crate) fn close(&self, patience: Duration) {
        self.pools.lock().drain().for_each(|(_, pool)| pool.close());
        self.servers.lock().clear();
        self.roster.wait_until_idle(patience);
    }
}

fn get_or_insert<K: Clone + Eq + Hash, V>(
    map: &Mutex<HashMap<K, Arc<V>>>,
    key: K,
    make: impl FnOnce(K) -> V,
) -> Arc<V> {
    Arc::clone(map.lock().entry(key.clone()).or_insert_with(|| Arc::new(make(key))))
}
