//! [`Dispatcher::run_each`]: many root calls, some of them at a time.

use futures_util::stream::{self, Stream, StreamExt};
use manifold_runtime_api::{Error, Result};
use tokio::task::JoinHandle;

use crate::completion::Completion;
use crate::dispatcher::Dispatcher;
use crate::invocation::Invocation;

impl Dispatcher {
    /// Runs many requests, up to `at_once` (at least 1) at a time, and returns the results in the
    /// order of the requests. An error in the place of a request is returned in its place.
    ///
    /// `invocations` is asked for the next one when there is room, so it may be long.
    ///
    /// # Behavior
    /// - What the requests have in common is computed once, as in all calls. With
    ///   [`Policy::RecomputeAll`](crate::Policy::RecomputeAll), each request computes it again.
    /// - A failure does not end the others.
    /// - Each request has the budget of its invocation.
    /// - When the stream is dropped, the requests in progress are cancelled.
    ///
    /// # Panics
    /// The stream panics if it is polled outside of a tokio runtime.
    ///
    /// ```
    /// use futures_util::StreamExt;
    /// use manifold_dispatcher::Dispatcher;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let dispatcher = Dispatcher::builder().build()?;
    /// let square = dispatcher.function("square", 1, |number: u64| async move { number * number })?;
    /// let calls = (1..=3).map(|number| square.invocation(&number));
    /// let mut results = std::pin::pin!(dispatcher.run_each(calls, 2));
    /// let mut count = 0;
    /// while let Some(result) = results.next().await {
    ///     result?;
    ///     count += 1;
    /// }
    /// assert_eq!(count, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn run_each(
        &self,
        invocations: impl IntoIterator<Item = Result<Invocation>>,
        at_once: usize,
    ) -> impl Stream<Item = Result<Completion>> {
        let dispatcher = self.clone();
        let calls = invocations.into_iter().map(move |invocation| {
            let dispatcher = dispatcher.clone();
            async move {
                let invocation = invocation?;
                // A task of its own, so that the calls run on all cores.
                let call = tokio::spawn(async move { dispatcher.run(invocation).await });
                let mut call = AbortOnDrop(call);
                (&mut call.0).await.unwrap_or_else(|error| {
                    Err(Error::runtime(format!("the task of a call failed: {error}")))
                })
            }
        });
        stream::iter(calls).buffered(at_once.max(1))
    }
}

/// A task that is aborted when this is dropped.
struct AbortOnDrop(JoinHandle<Result<Completion>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
