//! Runs one job: instantiates its module, runs the guest, and serves the guest's requests.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use manifold_runtime_api::abi::{Reply, Session};
use manifold_runtime_api::{JobPhase, Limits, Report, Result};
use wasmtime::{Extern, PoolConcurrencyLimitError, Store, Trap};

use crate::guest_state::{self, GuestState};
use crate::limits::check_computing_time;
use crate::mailbox::{Mailbox, Step};
use crate::prepare::Compiled;
use crate::ticker::Awake;
use crate::trap;

/// The result of an attempt to run a guest.
pub(crate) enum Attempt {
    /// The guest ran until it ended or was stopped.
    Ran(Result<()>),
    /// The pool had no free slot. The guest has not started.
    PoolFull,
}

/// Instantiates `compiled`, runs its guest, and serves the guest's requests.
pub(crate) async fn run(compiled: &Compiled, session: &Session, awake: &Awake<'_>) -> Attempt {
    let mailbox = Arc::new(Mailbox::default());
    let state = GuestState::new(
        Arc::clone(&mailbox),
        session.job().limits,
        Arc::clone(&session.job().meter),
    );
    session.report(Report::Phase(JobPhase::Start));
    let guest = Box::pin(guest(compiled, state, session));
    mailbox.clocked(serve(guest, session, &mailbox, awake)).await
}

async fn serve(
    mut guest: Pin<Box<impl Future<Output = wasmtime::Result<()>>>>,
    session: &Session,
    mailbox: &Mailbox,
    awake: &Awake<'_>,
) -> Attempt {
    let limits = session.job().limits;
    let mut checked = awake.ticks();
    loop {
        let step = mailbox.resume(&mut guest).await;
        for line in mailbox.take_log() {
            session.log(&line);
        }
        let request = match step {
            Step::Request(request) => request,
            Step::Done(Err(error)) if error.is::<PoolConcurrencyLimitError>() => {
                return Attempt::PoolFull;
            }
            Step::Done(end) => return Attempt::Ran(trap::explain(end)),
        };
        let call = session.call(request.encoding, request.body);
        let response = match while_in_time(call, &limits, mailbox).await {
            Ok(Reply::Continue(response)) => response,
            // Dropping the guest unwinds its fiber.
            Ok(Reply::Ended(_)) => return Attempt::Ran(Ok(())),
            Err(breach) => return Attempt::Ran(Err(breach)),
        };
        if awake.ticks() != checked {
            let computed = mailbox.computing_time(Instant::now());
            if let Err(breach) = check_computing_time(&limits, computed) {
                return Attempt::Ran(Err(breach));
            }
            // Most requests are served without waiting, so a guest that only makes requests would
            // never yield to other tasks.
            tokio::task::yield_now().await;
            checked = awake.ticks();
        }
        mailbox.respond(response);
    }
}

/// Serves a request, which may compute for long between the polls, as `run_many` of many hits does.
/// Errors if the computing time exceeds its limit.
async fn while_in_time(
    call: impl Future<Output = Reply>,
    limits: &Limits,
    mailbox: &Mailbox,
) -> Result<Reply> {
    let mut call = pin!(call);
    poll_fn(|context| match call.as_mut().poll(context) {
        Poll::Ready(reply) => Poll::Ready(Ok(reply)),
        Poll::Pending => {
            match check_computing_time(limits, mailbox.computing_time(Instant::now())) {
                Ok(()) => Poll::Pending,
                Err(breach) => Poll::Ready(Err(breach)),
            }
        }
    })
    .await
}

async fn guest(compiled: &Compiled, state: GuestState, session: &Session) -> wasmtime::Result<()> {
    let mut store = Store::new(compiled.instance.module().engine(), state);
    guest_state::limit(&mut store)?;
    let end = run_exports(compiled, &mut store, session).await;
    store.data_mut().log_written(true);
    let end = match &end {
        Err(stop) if matches!(stop.downcast_ref(), Some(Trap::OutOfFuel)) => {
            guest_state::charge_fuel(&mut store)?;
            Err(wasmtime::Error::new(store.data().usage.out_of_fuel()))
        }
        _ => guest_state::charge_fuel(&mut store).and(end),
    };
    store.data().usage.report(session);
    end
}

async fn run_exports(
    compiled: &Compiled,
    store: &mut Store<GuestState>,
    session: &Session,
) -> wasmtime::Result<()> {
    let instance = compiled.instance.instantiate_async(&mut *store).await?;
    session.report(Report::Phase(JobPhase::Compute));
    for entry in compiled.initialize.iter().chain([&compiled.entry]) {
        let function = instance.get_module_export(&mut *store, entry).and_then(Extern::into_func);
        let function = function.ok_or_else(|| {
            wasmtime::Error::msg("the instance lacks an entry point of its module")
        })?;
        function.typed::<(), ()>(&*store)?.call_async(&mut *store, ()).await?;
    }
    Ok(())
}
