//! A unit that another node has, seen from the node whose callers wait for it.

use std::sync::Arc;
use std::time::Instant;

use manifold_dispatcher::{Budget, Spent, Unit};
use manifold_runtime_api::{Error, ObjectId, Reason};

use crate::bus::Unavailable;
use crate::claim::{self, Claim};
use crate::cycle;
use crate::memo;
use crate::message::{Cancel, End, Id, encode};
use crate::node::{Hint, Shared};
use crate::policy::{Pause, TO_CLAIM};

/// What has become of a unit.
enum Now {
    /// It is still being run.
    Waits,
    /// This node is to run it.
    TakeBack,
    /// Another node could not run it.
    Refused,
    /// The outcome is here.
    Found(memo::Found),
}

/// Waits for the outcome of `unit` from another node. Gives it back if that node is dead or has failed,
/// and tells it if the unit is cancelled. `was_given` says that this node gave it away, and has not
/// claimed it.
pub(crate) async fn wait(shared: Arc<Shared>, mut unit: Unit, was_given: bool) {
    let request = unit.request;
    let _counted = Arc::clone(&shared.away);
    let began = Instant::now();
    let mut hints = shared.hints(request);
    let mut ended = None;
    let (mut pause, mut until_search) = (Pause::between_looks(), Pause::between_searches());
    let mut searched = began;
    loop {
        // Without a server, an answer would be waited for long.
        let looked = tokio::select! {
            looked = look(&shared, request, (began, was_given), ended) => looked,
            () = shared.bus.lost() => Err(Unavailable),
            () = unit.cancelled() => break,
        };
        match looked {
            Ok(Now::Waits) => {}
            Ok(Now::TakeBack) => return drop(unit),
            Ok(Now::Refused) => return unit.refuse(),
            Ok(Now::Found(found)) => {
                // An outcome that was there before costs nothing, and says nothing about the time.
                // What has spent more than it was given was not run for this unit.
                let Budget { runs, written_bytes, .. } = unit.budget;
                let is_of_unit = was_given
                    && found.origin.as_ref() == Some(&shared.session)
                    && found.spent.runs <= runs
                    && found.spent.written_bytes <= written_bytes;
                let mut spent = Spent::default();
                if is_of_unit {
                    shared.measured(&unit.image, found.micros);
                    spent = found.spent;
                }
                return unit.settle(found.arrived().spent(spent));
            }
            Err(Unavailable) if shared.bus.is_lost() => return drop(unit),
            Err(Unavailable) => {}
        }
        let searches = searched.elapsed() >= until_search.next();
        if searches {
            searched = Instant::now();
            until_search.grow();
        }
        let wait = async {
            let found = if searches { cycle::find(&shared, request).await } else { None };
            if found.is_none() {
                let before_search = until_search.next().saturating_sub(searched.elapsed());
                tokio::time::sleep(pause.next().min(before_search)).await;
            }
            found
        };
        tokio::select! {
            () = unit.cancelled() => break,
            hint = hints.recv() => match hint {
                Some(Hint::Waited) => until_search.reset(),
                Some(Hint::Ended(end)) => ended = Some(end),
                None => {}
            },
            found = wait => match found {
                Some(chain) => return unit.fail(Error::new(Reason::Cycle { chain })),
                None => pause.grow(),
            },
        }
    }
    drop(unit);
    if !was_given {
        // The node runs it for others.
        return;
    }
    // The last caller has stopped waiting. The other node may be about to claim the unit.
    for _ in 0..5 {
        match shared.bus.holder(request).await {
            Ok(Some(holder)) if holder.session != shared.session => {
                let subject = shared.bus.subject("cancel", Some(&holder.session));
                let (request, origin) = (Id(request), shared.session.clone());
                let about = encode(&Cancel { request, origin });
                let _ = shared.bus.client.publish(subject, about.into()).await;
                return;
            }
            Ok(None) => tokio::time::sleep(TO_CLAIM / 4).await,
            _ => return,
        }
    }
}

/// Returns what has become of a unit. `began` is since when this node waits for it.
async fn look(
    shared: &Shared,
    request: ObjectId,
    (began, was_given): (Instant, bool),
    ended: Option<End>,
) -> Result<Now, Unavailable> {
    if let Some(found) = memo::fetch(shared, request).await? {
        return Ok(Now::Found(found));
    }
    match ended {
        Some(End::Failed) => return Ok(Now::Refused),
        Some(End::GivenUp) => return Ok(Now::TakeBack),
        Some(End::Published) | None => {}
    }
    let is_late = began.elapsed() > TO_CLAIM;
    // The other node may be about to claim it.
    let may_take_back = !was_given || is_late;
    let claimed = match shared.bus.holder(request).await? {
        None if may_take_back => claim::replace(shared, request, None).await?,
        None => Claim::Theirs,
        Some(holder) if holder.session == shared.session && may_take_back => Claim::Mine,
        Some(holder) if holder.session == shared.session => Claim::Theirs,
        Some(holder) if claim::is_left(shared, request, &holder, began.elapsed()).await => {
            claim::replace(shared, request, Some(&holder)).await?
        }
        Some(_) => Claim::Theirs,
    };
    Ok(match claimed {
        Claim::Mine => Now::TakeBack,
        Claim::Theirs => Now::Waits,
        Claim::Known(found) => Now::Found(found),
    })
}
