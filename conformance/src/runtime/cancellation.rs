//! Dropping the future of a job stops its guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use manifold_runtime_api::{Call, TestHost};

use super::RuntimeFixture;
use super::setup::{Setup, wait_until};
use crate::check::{Step, ensure};
use crate::program::Program;

/// More jobs than a runtime has threads on the usual machine, so that guests which are not stopped
/// take all of them.
const DROPPED_JOBS: usize = 8;

/// > Dropping the future that `run` returns stops the guest.
///
/// Drops several jobs of `Program::Spin` while they compute. Their hosts have to be released, and
/// other jobs have to run afterwards.
pub(super) async fn dropping_the_future_stops_a_computing_guest(
    fixture: Arc<dyn RuntimeFixture>,
) -> Step {
    let setup = Setup::new(fixture);
    let limits = setup.patient_limits();
    for _ in 0..DROPPED_JOBS {
        let running = setup.start(setup.job(Program::Spin, &[])?.limits(limits));
        running.started().await;
        running.cancel("a computing guest").await?;
    }
    setup.echo("jobs of computing guests were dropped").await
}

/// Counts the nested runs that are under way.
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// > Dropping the future that `run` returns stops the guest.
///
/// Drops several jobs of `Program::Relay` while they wait for a run that never ends. The futures of
/// these runs have to be dropped, the hosts have to be released, and other jobs have to run
/// afterwards.
pub(super) async fn dropping_the_future_stops_a_waiting_guest(
    fixture: Arc<dyn RuntimeFixture>,
) -> Step {
    let count = Arc::new(AtomicUsize::new(0));
    let under_way = Arc::clone(&count);
    let host = TestHost::new().image("endless", move |_: Call| {
        let under_way = UnderWay::new(&under_way);
        async move {
            let _under_way = under_way;
            std::future::pending().await
        }
    });
    let setup = Setup::with_host(fixture, host);
    let limits = setup.patient_limits();
    let patience = setup.fixture.patience();
    let (image, args) = (setup.blob("endless"), setup.tree(&[])?);
    for _ in 0..DROPPED_JOBS {
        let job = setup.job(Program::Relay, &[("image", image), ("in", args)])?.limits(limits);
        let running = setup.start(job);
        ensure(
            wait_until(patience, || count.load(Ordering::SeqCst) == 1).await,
            format!("Program::Relay to start a run within {patience:?}"),
            || format!("{} runs under way", count.load(Ordering::SeqCst)),
        )?;
        running.cancel("a waiting guest").await?;
        ensure(
            wait_until(patience, || count.load(Ordering::SeqCst) == 0).await,
            format!("the future of the nested run to be dropped within {patience:?}"),
            || "it was kept".to_owned(),
        )?;
    }
    setup.echo("jobs of waiting guests were dropped").await
}
