//! The containers of one runtime: how jobs get them, and those that wait for jobs.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::time::Duration;

use manifold_runtime_api::Result;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::engine::{EngineError, Roster};
use crate::pool::{Pool, Taken};
use crate::serving::{Assignment, Servers};
use crate::spec::Spec;

/// How a job gets its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// A container is created for the job and removed before the job ends. This is the baseline
    /// without any optimization.
    Fresh,
    /// A container that was started in advance is used for one job and then removed.
    Parked,
    /// A container has one job at a time. After each, everything that the job could have left is
    /// removed. If something may remain, the container is thrown away.
    ///
    /// A container is used for one job, as with [`Mode::Parked`], if the isolation lets a job leave
    /// what cannot be removed: with a writable root file system, as root, with a network, or with
    /// other system calls than the engine allows by default.
    #[default]
    Recycled,
    /// One container serves many jobs and forks a process for each.
    Serving,
}

/// The containers of a runtime, by [`Spec`].
pub(crate) struct Containers {
    roster: Arc<Roster>,
    mode: Mode,
    /// How many containers of a spec are parked.
    parked: usize,
    /// How many jobs a recycled container may have.
    jobs: u32,
    /// How many recycled containers without a job are kept.
    warm: usize,
    this: Weak<Self>,
    pools: Mutex<HashMap<Spec, Arc<Pool>>>,
    servers: Mutex<HashMap<Spec, Arc<Servers>>>,
}

impl Containers {
    pub(crate) fn new(
        roster: Arc<Roster>,
        mode: Mode,
        parked: usize,
        jobs: u32,
        warm: usize,
    ) -> Arc<Self> {
        // Half of what there may be is for jobs of other images.
        let warm = warm.min(roster.capacity() / 2);
        Arc::new_cyclic(|this| Self {
            roster,
            mode,
            parked,
            jobs,
            warm,
            this: Weak::clone(this),
            pools: Mutex::default(),
            servers: Mutex::default(),
        })
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
        } else if self.mode != Mode::Fresh {
            self.pool(spec).warm();
        }
        Ok(())
    }

    /// Returns a container for a job.
    pub(crate) async fn take(&self, spec: &Spec) -> Result<Taken, EngineError> {
        self.pool(spec.clone()).take().await
    }

    /// Returns whether containers of `spec` have one job after the other.
    fn recycles(&self, spec: &Spec) -> bool {
        self.mode == Mode::Recycled && spec.isolation.leaves_nothing()
    }

    /// Returns a job's share of a container that serves many.
    pub(crate) async fn take_share(&self, spec: &Spec) -> Result<Assignment, EngineError> {
        self.servers(spec.clone()).take().await
    }

    fn pool(&self, spec: Spec) -> Arc<Pool> {
        get_or_insert(&self.pools, spec, |spec| {
            let (ahead, jobs) = match self.mode {
                Mode::Fresh => (0, 1),
                _ if self.recycles(&spec) => (0, self.jobs),
                _ => (self.parked, 1),
            };
            Pool::new(Weak::clone(&self.this), Arc::clone(&self.roster), spec, ahead, jobs)
        })
    }

    fn servers(&self, spec: Spec) -> Arc<Servers> {
        get_or_insert(&self.servers, spec, |spec| Servers::new(Arc::clone(&self.roster), spec))
    }

    /// Removes a container that has no job, to make room for another: the one that has had none for
    /// the longest time.
    pub(crate) async fn make_room(&self) {
        if let Some(removal) = self.remove_oldest(0) {
            let _ = removal.await;
        }
    }

    /// Removes containers that have no job while there are more than are kept, those first that have
    /// had none for the longest time.
    pub(crate) fn trim(&self) {
        if self.mode == Mode::Recycled {
            while self.remove_oldest(self.warm).is_some() {}
        }
    }

    /// Removes the container that has had no job for the longest time, if more than `kept` have none.
    /// The returned task ends when it is removed.
    fn remove_oldest(&self, kept: usize) -> Option<JoinHandle<()>> {
        let pools: Vec<Arc<Pool>> = self.pools.lock().values().cloned().collect();
        let ready: Vec<_> = pools.iter().map(|pool| (pool, pool.ready())).collect();
        if ready.iter().map(|(_, (count, _))| count).sum::<usize>() <= kept {
            return None;
        }
        let oldest = ready.iter().filter_map(|(pool, (_, since))| Some((pool, (*since)?)));
        oldest.min_by_key(|(_, since)| *since)?.0.remove_oldest()
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
