//! Claims of requests: one node runs each, and the others wait for it.

use std::time::Duration;

use manifold_runtime_api::ObjectId;

use crate::bus::{Claimed, Holder, Unavailable};
use crate::cycle;
use crate::memo::{self, Found};
use crate::node::Shared;

/// The result of a claim.
pub(crate) enum Claim {
    /// This node runs the request.
    Mine,
    /// Another node has it.
    Theirs,
    /// The outcome is known, and its objects are here. Nobody has to run the request.
    Known(Found),
}

/// How long a claim is believed before its node is asked.
const BELIEVED: Duration = Duration::from_secs(1);

/// Claims `request`, for which this node has waited for some time. Replaces a claim that is left over.
pub(crate) async fn claim(
    shared: &Shared,
    request: ObjectId,
    waited: Duration,
) -> Result<Claim, Unavailable> {
    match shared.bus.claim(request, &shared.session, None).await? {
        Claimed::Theirs(holder) if is_left(shared, request, &holder, waited).await => {
            replace(shared, request, Some(&holder)).await
        }
        claimed => Ok(settled(shared, request, claimed).await),
    }
}

/// Claims `request`, and replaces the claim `known`.
pub(crate) async fn replace(
    shared: &Shared,
    request: ObjectId,
    known: Option<&Holder>,
) -> Result<Claim, Unavailable> {
    let claimed = shared.bus.claim(request, &shared.session, known).await?;
    Ok(settled(shared, request, claimed).await)
}

/// Returns whether a claim is to be replaced after this node has waited for some time: its node is dead,
/// has nothing to do with the request, or takes too long.
pub(crate) async fn is_left(
    shared: &Shared,
    request: ObjectId,
    holder: &Holder,
    waited: Duration,
) -> bool {
    if waited > shared.patience {
        tracing::warn!(%request, "another node takes too long with a run, which is run here, too");
        return true;
    }
    if shared.bus.is_dead(&holder.session).await {
        return true;
    }
    let said =
        if waited > BELIEVED { cycle::ask(shared, &holder.session, request).await } else { None };
    said.is_some_and(|said| !said.is_busy)
}

/// Returns the result of a claim, after a look whether the request had ended elsewhere before.
async fn settled(shared: &Shared, request: ObjectId, claimed: Claimed) -> Claim {
    if claimed != Claimed::Mine {
        return Claim::Theirs;
    }
    // Without an answer, the request is run: the claim is this node's.
    match memo::fetch(shared, request).await {
        Ok(Some(found)) => {
            shared.bus.release(request, &shared.session).await;
            Claim::Known(found)
        }
        Ok(None) | Err(Unavailable) => Claim::Mine,
    }
}
