//! Takes runs of other nodes over, while this node has nothing to do.

use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::Request;
use async_nats::client::RequestErrorKind;
use manifold_dispatcher::Invocation;
use manifold_runtime_api::ObjectId;
use tokio_util::sync::CancellationToken;

use crate::bus::{Claimed, Unavailable};
use crate::cycle;
use crate::inputs::without_others;
use crate::memo::{self, Found};
use crate::message::{self, Done, End, Given, Id, Steal, UnitMessage, encode};
use crate::node::{Shared, Taken};
use crate::objects::{self, in_place};
use crate::policy::{MAX_UNITS, Pause};

/// How many units a node has at once, also those that wait for others.
const MAX_TAKEN: usize = 20_000;

/// How long a unit that was taken over counts as about to begin, at most: if the module of its image is
/// compiled, and if it may not be.
const TO_BEGIN: Duration = Duration::from_millis(20);
const TO_COMPILE: Duration = Duration::from_secs(1);

/// How long a node tries to publish an outcome.
const TO_PUBLISH: Duration = Duration::from_secs(5);

/// Takes runs over until the task is aborted.
pub(crate) async fn take(shared: Arc<Shared>) {
    let mut pause = Pause::between_asks();
    loop {
        let is_idle = is_idle(&shared);
        let given = if is_idle { ask(&shared).await } else { Vec::new() };
        if given.is_empty() {
            tokio::time::sleep(pause.next()).await;
            if is_idle {
                pause.grow();
            } else {
                pause.reset();
            }
            continue;
        }
        pause.reset();
        if shared.leaves.load(Ordering::Relaxed) {
            // They are taken back.
            return;
        }
        for unit in given.into_iter().take(MAX_UNITS as usize) {
            let taken = Taken::new(&unit);
            let stop = taken.stop.clone();
            if let Entry::Vacant(vacant) = shared.taken.lock().entry(unit.request.0) {
                vacant.insert(taken);
                let fresh = Arc::clone(&shared.fresh);
                shared.spawn(run(Arc::clone(&shared), unit, stop, fresh));
            }
        }
    }
}

/// Returns whether this node can run more than it has.
fn is_idle(shared: &Shared) -> bool {
    let (used, permits) = shared.dispatcher.permits();
    // More than can run would wait here, and be given on. What waits for other nodes holds no permit.
    let fresh = Arc::strong_count(&shared.fresh) - 1;
    !shared.leaves.load(Ordering::Relaxed)
        && shared.bus.connected_for().is_some()
        && used + fresh < permits
        && shared.taken.lock().len() < MAX_TAKEN
}

/// Asks for runs. Returns none if no node has any.
async fn ask(shared: &Shared) -> Vec<UnitMessage> {
    let hosts = shared.hosts();
    let steal = encode(&Steal { session: shared.session.clone(), hosts });
    let asked = Request::new().payload(steal.into()).timeout(Some(Duration::from_secs(1)));
    let answer = shared.bus.client.send_request(shared.bus.subject("steal", None), asked).await;
    match answer {
        Ok(answer) => match message::decode::<Given>(&answer.payload) {
            Some(given) => given.units,
            None => {
                tracing::warn!("a malformed message of another node is ignored");
                Vec::new()
            }
        },
        Err(error) => {
            if error.kind() != RequestErrorKind::NoResponders {
                tracing::debug!("no runs from other nodes: {error}");
            }
            Vec::new()
        }
    }
}

/// Runs a unit, and tells the node that gave it away.
async fn run(shared: Arc<Shared>, unit: UnitMessage, stop: CancellationToken, fresh: Arc<()>) {
    let request = unit.request.0;
    let work = outcome(&shared, &unit, fresh);
    let ended = tokio::select! {
        () = stop.cancelled() => Ended::Here(End::GivenUp),
        ended = work => ended,
    };
    shared.taken.lock().remove(&request);
    let Ended::Here(end) = ended else { return };
    shared.bus.release(request, &shared.session).await;
    let done = encode(&Done { request: Id(request), end });
    let subject = shared.bus.subject("done", Some(&unit.origin));
    // If it is lost, the other node finds the outcome when it looks.
    let _ = shared.bus.client.publish(subject, done.into()).await;
}

/// What has become of a unit.
enum Ended {
    /// It was run here.
    Here(End),
    /// Another node runs it.
    Elsewhere,
}

/// Claims and runs a unit, and publishes its outcome.
async fn outcome(shared: &Shared, unit: &UnitMessage, fresh: Arc<()>) -> Ended {
    const GIVEN_UP: Ended = Ended::Here(End::GivenUp);
    let request = unit.request.0;
    match shared.bus.claim(request, &shared.session, None).await {
        Ok(Claimed::Mine) => {}
        Ok(Claimed::Theirs(holder)) => {
            // The node that gives it away may have claimed it when it ran there before. If it runs there
            // again, this comes too late.
            if holder.session != unit.origin {
                return Ended::Elsewhere;
            }
            match cycle::ask(shared, &holder.session, request).await {
                Some(waits) if waits.is_away => {}
                Some(_) => return Ended::Elsewhere,
                None => return GIVEN_UP,
            }
            match shared.bus.claim(request, &shared.session, Some(&holder)).await {
                Ok(Claimed::Mine) => {}
                Ok(Claimed::Theirs(_)) => return Ended::Elsewhere,
                Err(Unavailable) => return GIVEN_UP,
            }
        }
        Err(Unavailable) => return GIVEN_UP,
    }
    if let Ok(Some(_)) = memo::fetch(shared, request).await {
        return Ended::Here(End::Published);
    }
    let roots = [Some(unit.args.0), ObjectId::from_hex(&unit.image).ok(), unit.std.map(|id| id.0)];
    let is_here =
        |id: &ObjectId| in_place(|| without_others(|| shared.dispatcher.read(*id).is_ok()));
    let missing: Vec<_> = roots.into_iter().flatten().filter(|id| !is_here(id)).collect();
    if !missing.is_empty() {
        // What is below them arrives when it is read. If this fails, the run says what is missing.
        let sources = unit.sources.iter().cloned().collect();
        if let Ok(trees) = objects::fetch(shared, &sources, &missing, &[]).await
            && let Some(inputs) = &shared.inputs
        {
            inputs.remember(&trees);
        }
    }
    let mut invocation = Invocation::new(&unit.image)
        .args(unit.args.0)
        .salt(&unit.salt)
        .budget(unit.budget())
        .limits(unit.limits())
        .unpinned()
        .collecting();
    invocation.std = unit.std.map(|id| id.0);
    let began = Instant::now();
    let is_compiled = shared.is_compiled(&unit.image);
    let mut run = pin!(shared.dispatcher.run(invocation));
    let ended =
        tokio::time::timeout(if is_compiled { TO_BEGIN } else { TO_COMPILE }, &mut run).await;
    drop(fresh);
    shared.has_compiled(&unit.image);
    let ended = match ended {
        Ok(ended) => ended,
        Err(_) => run.await,
    };
    let completion = match ended {
        Ok(completion) => completion,
        Err(error) => {
            // The node that gave it away runs it, so that the error has its whole chain.
            tracing::debug!(%request, "a run of another node failed: {error}");
            return Ended::Here(End::Failed);
        }
    };
    if completion.request != request {
        tracing::warn!(%request, "another node sent a run under a wrong request id");
        return Ended::Here(End::Failed);
    }
    // An outcome that a failure influenced is not memoized.
    if shared.dispatcher.look_up(request).ok().flatten() != Some(completion.outcome) {
        return Ended::Here(End::Failed);
    }
    let found = Found::new(completion.outcome, completion.spent, began)
        .entries(completion.entries)
        .of_unit(&unit.origin);
    let ended = Instant::now();
    loop {
        match memo::publish(shared, request, &found).await {
            Ok(true) => return Ended::Here(End::Published),
            Ok(false) => return Ended::Here(End::Failed),
            Err(Unavailable) if ended.elapsed() > TO_PUBLISH => return GIVEN_UP,
            Err(Unavailable) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
