//! One job in one instance.

use std::sync::Arc;
use std::time::Instant;

use manifold_runtime_api::Result;
use manifold_runtime_api::abi::Session;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap};

use crate::engines::TICK;
use crate::guest_state::{self, GuestState};
use crate::mailbox::{Mailbox, Step};
use crate::module_cache::Compiled;
use crate::trap;

/// How an attempt to run a guest ended.
pub(crate) enum Attempt {
    /// The guest ran, to its end or until it was stopped.
    Ran(Result<()>),
    /// No slot of the pool was free. The guest has not begun.
    PoolFull,
}

/// Instantiates `compiled`, runs its guest, and serves what it asks for.
pub(crate) async fn run(compiled: &Compiled, session: &Session) -> Attempt {
    let mailbox = Arc::new(Mailbox::default());
    let limits = session.job().limits;
    let mut guest =
        Box::pin(guest(compiled, GuestState::new(Arc::clone(&mailbox), limits, Arc::clone(&session.job().meter))));
    let mut yielded = Instant::now();
    loop {
        let step = mailbox.resume(&mut guest).await;
        for line in mailbox.take_log() {
            session.log(&line);
        }
        let request = match step {
            Step::Request(request) => request,
            Step::Done(Err(error)) if error.is::<PoolConcurrencyLimitError>() => return Attempt::PoolFull,
            Step::Done(end) => return Attempt::Ran(trap::explain(end)),
        };
        let reply = mailbox.serve(session.call(request.encoding, &request.body)).await;
        if session.has_ended() {
            // Dropping the guest unwinds its fiber.
            return Attempt::Ran(Ok(()));
        }
        if let Err(breach) = guest_state::check_computing_time(&mailbox, &limits) {
            return Attempt::Ran(Err(breach));
        }
        // Most requests are served without a wait, and a guest that makes nothing else would never let others run.
        if yielded.elapsed() > TICK {
            tokio::task::yield_now().await;
            yielded = Instant::now();
        }
        mailbox.respond(reply.body);
    }
}

async fn guest(compiled: &Compiled, state: GuestState) -> wasmtime::Result<()> {
    let mut store = Store::new(compiled.instance.module().engine(), state);
    guest_state::limit(&mut store)?;
    let end = run_exports(compiled, &mut store).await;
    match &end {
        Err(stop) if matches!(stop.downcast_ref(), Some(Trap::OutOfFuel)) => {
            guest_state::charge_fuel(&mut store)?;
            Err(wasmtime::Error::new(guest_state::out_of_fuel(store.data())))
        }
        _ => guest_state::charge_fuel(&mut store).and(end),
    }
}

async fn run_exports(compiled: &Compiled, store: &mut Store<GuestState>) -> wasmtime::Result<()> {
    let instance = compiled.instance.instantiate_async(&mut *store).await?;
    if compiled.has_initialize {
        instance.get_typed_func::<(), ()>(&mut *store, "_initialize")?.call_async(&mut *store, ()).await?;
    }
    instance.get_typed_func::<(), ()>(&mut *store, "caos_run")?.call_async(&mut *store, ()).await
}
