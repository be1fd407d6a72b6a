//! Gives runs away: while runs wait here, this node answers others that want some.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use manifold_runtime_api::ObjectId;

use crate::away;
use crate::message::{self, Given, Steal, UnitMessage, encode};
use crate::node::Shared;
use crate::policy::{GIVES, LISTENS, QUEUED, Share, WANTS};

/// Gives runs away until the task is aborted.
pub(crate) async fn give(shared: Arc<Shared>) {
    let mut subscription: Option<Subscriber> = None;
    let (mut last_surplus, mut wanted_until) = (Instant::now(), None::<Instant>);
    loop {
        let (has_surplus, _) = shared.dispatcher.surplus(QUEUED);
        if has_surplus {
            last_surplus = Instant::now();
        }
        if wanted_until.is_some_and(|until| until < Instant::now()) {
            wanted_until = None;
            shared.dispatcher.want_runs(false);
        }
        match &mut subscription {
            None if has_surplus => {
                let (subject, group) = (shared.bus.subject("steal", None), "givers".to_owned());
                // If this fails, it is tried again at the next look.
                subscription = shared.bus.client.queue_subscribe(subject, group).await.ok();
            }
            None => tokio::time::sleep(GIVES).await,
            Some(_) if last_surplus.elapsed() > LISTENS => {
                if let Some(asked) = subscription.take() {
                    let task = Arc::clone(&shared);
                    task.spawn(answer_rest(Arc::clone(&shared), asked));
                }
            }
            Some(asked) => match tokio::time::timeout(GIVES, asked.next()).await {
                Err(_) => {}
                Ok(None) => subscription = None,
                Ok(Some(asked)) => {
                    shared.dispatcher.want_runs(true);
                    wanted_until = Some(Instant::now() + WANTS);
                    answer(&shared, asked).await;
                }
            },
        }
    }
}

/// Stops listening, and answers those that had asked before: otherwise they would wait in vain.
async fn answer_rest(shared: Arc<Shared>, mut asked: Subscriber) {
    if asked.drain().await.is_err() {
        return;
    }
    while let Ok(Some(asked)) = tokio::time::timeout(WANTS, asked.next()).await {
        answer(&shared, asked).await;
    }
}

/// Answers a node that wants runs.
async fn answer(shared: &Arc<Shared>, asked: Message) {
    let Some(reply) = asked.reply else { return };
    let steal: Option<Steal> = message::decode(&asked.payload);
    let mut given = Given::default();
    let mut units = Vec::new();
    if let Some(steal) = steal.filter(|steal| steal.session != shared.session) {
        let hosts: HashSet<ObjectId> = steal.hosts.iter().map(|host| host.0).collect();
        let (_, queued) = shared.dispatcher.surplus(QUEUED);
        let sources = shared.sources();
        let (mut share, mut bytes) = (Share::new(queued), 0);
        while share.has_room() {
            let mut estimate = None;
            let unit = shared.dispatcher.take_queued(QUEUED, |run| {
                estimate = shared.estimate(run.image);
                hosts.contains(&run.host) && share.accepts(estimate)
            });
            let Some(unit) = unit.await else { break };
            let message = UnitMessage::new(&shared.session, &sources, &unit);
            bytes += encode(&message).len();
            given.units.push(message);
            units.push(unit);
            share.add(estimate);
            if bytes > shared.bus.client.max_payload() / 4 {
                break;
            }
        }
    }
    let answer = encode(&given);
    if answer.len() > shared.bus.client.max_payload()
        || shared.bus.client.publish(reply, answer.into()).await.is_err()
    {
        // The units are given back.
        return;
    }
    for unit in units {
        shared.spawn(away::wait(Arc::clone(shared), unit, true));
    }
}
