//! Cycles of runs that wait for each other on several nodes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Request;
use manifold_runtime_api::ObjectId;

use crate::message::{self, About, Id, Waits, encode};
use crate::node::{Hint, Shared};

/// How many runs are looked at.
const MAX_RUNS: usize = 10_000;
/// The time between two walks. A cycle is one only if both find it with the same units.
const BETWEEN: Duration = Duration::from_millis(100);

/// How often a node looks which units its runs wait for.
const LOOK: Duration = Duration::from_millis(500);

/// Tells whoever waits for a unit when another run of this node begins to wait for it, until the task is
/// aborted. Such a wait can close a cycle, although the unit has been elsewhere for long.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut known = HashSet::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let mut waits = HashSet::new();
        for request in shared.running() {
            let units = shared.dispatcher.waits_elsewhere(request);
            waits.extend(units.into_iter().map(|(unit, _)| (request, unit)));
        }
        for (_, unit) in waits.difference(&known) {
            shared.hint(*unit, Hint::Waited);
        }
        known = waits;
    }
}

/// Returns the requests of a cycle through `request`, which another node runs. `None` if there is none,
/// or if a node in it does not answer.
pub(crate) async fn find(shared: &Shared, request: ObjectId) -> Option<Vec<ObjectId>> {
    let _turn = shared.searching.acquire().await.ok()?;
    let first = walk(shared, request).await?;
    tokio::time::sleep(BETWEEN).await;
    let second = walk(shared, request).await?;
    (first == second).then(|| {
        let mut chain: Vec<_> = first.into_iter().map(|(request, _)| request).collect();
        chain.extend(chain.first().copied());
        chain
    })
}

/// Follows what `request` waits for, from node to node, until it comes back. Returns the way: the
/// requests, with the numbers of their units.
async fn walk(shared: &Shared, request: ObjectId) -> Option<Vec<(ObjectId, u64)>> {
    let mut open = vec![request];
    let mut met: HashSet<_> = open.iter().copied().collect();
    let mut came_from: HashMap<ObjectId, (ObjectId, u64)> = HashMap::new();
    while let Some(next) = open.pop() {
        // Nobody has claimed it yet, or its node does not answer: it may not be in the cycle.
        let Ok(Some(holder)) = shared.bus.holder(next).await else { continue };
        let Some(waits) = ask(shared, &holder.session, next).await else { continue };
        for (unit, number) in waits.units {
            if unit.0 == request {
                let mut way = vec![(request, number)];
                let mut at = next;
                while at != request {
                    let (before, number) = *came_from.get(&at)?;
                    way.push((at, number));
                    at = before;
                }
                way.reverse();
                return Some(way);
            }
            if met.insert(unit.0) {
                came_from.insert(unit.0, (next, number));
                open.push(unit.0);
            }
        }
        if met.len() > MAX_RUNS {
            return None;
        }
    }
    None
}

/// Returns what the node of a session says of a run. `None` if it does not answer.
pub(crate) async fn ask(shared: &Shared, session: &str, request: ObjectId) -> Option<Waits> {
    if session == shared.session {
        return Some(waits(shared, request));
    }
    let about = encode(&About { request: Id(request) });
    let asked = Request::new().payload(about.into()).timeout(Some(Duration::from_millis(500)));
    let subject = shared.bus.subject("waits", Some(session));
    let answer = shared.bus.client.send_request(subject, asked).await.ok()?;
    message::decode(&answer.payload)
}

/// Returns what this node says of a run.
pub(crate) fn waits(shared: &Shared, request: ObjectId) -> Waits {
    let units = shared.dispatcher.waits_elsewhere(request);
    let is_away = units.iter().any(|(unit, _)| *unit == request);
    let others = units.into_iter().filter(|(unit, _)| *unit != request);
    Waits {
        is_busy: shared.is_busy_with(request),
        is_away,
        units: others.take(MAX_RUNS).map(|(unit, number)| (Id(unit), number)).collect(),
    }
}
