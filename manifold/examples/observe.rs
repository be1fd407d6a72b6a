//! Observes what a dispatcher does: every run with its time, memo hits, and what guests log.
//!
//! Run it with `cargo run --example observe`.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use manifold::native::NativeRuntime;
use manifold::{Dispatcher, Event, Invocation, ObjectId, Observer};

/// Measures every run. A dispatcher calls it from many threads.
#[derive(Default)]
struct Timings {
    started: Mutex<HashMap<ObjectId, Instant>>,
    finished: Mutex<Vec<(ObjectId, Duration, bool)>>,
    log: Mutex<Vec<String>>,
}

impl Observer for Timings {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Started { request, image, runtime, .. } => {
                println!("{request} starts: image {image}, runtime {runtime}");
                self.started.lock().unwrap().insert(*request, Instant::now());
            }
            // Every `Started` is followed by exactly one `Settled`, also if the run is cancelled.
            Event::Settled { request, result, memoized } => {
                let started = self.started.lock().unwrap().remove(request);
                let time = started.map_or(Duration::ZERO, |started| started.elapsed());
                let word = if result.is_ok() { "succeeded" } else { "failed" };
                println!("{request} {word} after {time:?}, memoized: {memoized}");
                self.finished.lock().unwrap().push((*request, time, *memoized));
            }
            Event::Hit { request } => println!("{request} came from the memo"),
            Event::Logged { request, message } => {
                println!("{request} says: {message}");
                self.log.lock().unwrap().push((*message).to_owned());
            }
            // More kinds of events may be added.
            _ => {}
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let guests = NativeRuntime::builder("observed", "1")
        .guest("shout", |guest| async move {
            let text = guest.text("in").await?;
            guest.host().log(&format!("{} bytes", text.len()));
            guest.blob(text.to_uppercase()).await
        })
        .guest("fail", |_| async move { Err(manifold::Error::guest_failed("as it should")) })
        .build()?;
    let timings = Arc::new(Timings::default());
    // `on_event` takes a closure instead, for observers without state of their own.
    let dispatcher = Dispatcher::builder().observer(Arc::clone(&timings)).build()?;
    let host = dispatcher.add_runtime(guests)?;

    let shout = Invocation::new(dispatcher.install(host, "shout")?).arg("in", "hello");
    dispatcher.run(shout.clone()).await?;
    dispatcher.run(shout).await?;
    let fail = Invocation::new(dispatcher.install(host, "fail")?);
    dispatcher.run(fail).await.expect_err("the guest fails");

    assert_eq!(*timings.log.lock().unwrap(), ["5 bytes"]);
    assert!(timings.started.lock().unwrap().is_empty(), "each start has an end");
    let memoized: Vec<_> =
        timings.finished.lock().unwrap().iter().map(|(_, _, memoized)| *memoized).collect();
    assert_eq!(memoized, [true, false]);

    // The counters are there without any observer.
    let stats = dispatcher.stats();
    println!("{} runs, {} hits, {} failures", stats.runs, stats.hits, stats.failures);
    assert_eq!((stats.runs, stats.hits, stats.failures), (2, 1, 1));
    Ok(())
}
