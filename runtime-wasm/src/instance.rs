//! One job in one instance.

use std::sync::Arc;

use manifold_runtime_api::Result;
use manifold_runtime_api::abi::Session;
use wasmtime::{PoolConcurrencyLimitError, Store};

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
pub(crate) async fn run(compiled: &Compiled, session: &mut Session) -> Attempt {
    let mailbox = Arc::new(Mailbox::default());
    let state = GuestState::new(Arc::clone(&mailbox), session.job().limits);
    let mut guest = Box::pin(guest(compiled, state));
    loop {
        let step = mailbox.resume(&mut guest).await;
        for line in mailbox.take_log() {
            session.log(&line);
        }
        match step {
            Step::Done(Err(error)) if error.is::<PoolConcurrencyLimitError>() => return Attempt::PoolFull,
            Step::Done(end) => return Attempt::Ran(trap::explain(end)),
            Step::Request(request) => {
                let reply = session.call(&request).await;
                if session.has_ended() {
                    // Dropping the guest unwinds its fiber.
                    return Attempt::Ran(Ok(()));
                }
                mailbox.respond(reply.body);
            }
        }
    }
}

async fn guest(compiled: &Compiled, state: GuestState) -> wasmtime::Result<()> {
    let mut store = Store::new(compiled.instance.module().engine(), state);
    guest_state::limit(&mut store);
    let instance = compiled.instance.instantiate_async(&mut store).await?;
    if compiled.has_initialize {
        instance.get_typed_func::<(), ()>(&mut store, "_initialize")?.call_async(&mut store, ()).await?;
    }
    instance.get_typed_func::<(), ()>(&mut store, "caos_run")?.call_async(&mut store, ()).await
}
