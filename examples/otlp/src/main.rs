//! Counts the words of all files below a directory, and sends the span of each run to an OpenTelemetry
//! collector. `OTEL_EXPORTER_OTLP_ENDPOINT` is its address; the default is `http://localhost:4317`.

use std::env;
use std::error::Error;
use std::path::Path;

use manifold::native::{NativeGuest, NativeRuntime, argument};
use manifold::trace::TracingSpans;
use manifold::{Call, DirectoryObjects, Dispatcher, EntryMode, Invocation, ObjectRef};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args_os().nth(1).unwrap_or_else(|| ".".into());

    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(SpanExporter::builder().with_tonic().build()?)
        .with_resource(Resource::builder().with_service_name("words").build())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("manifold"));
    // `DEBUG` has calls, runs and joins; `TRACE` would have hits as well.
    let spans = Targets::new().with_target("manifold_trace::spans", LevelFilter::DEBUG);
    tracing_subscriber::registry().with(layer.with_filter(spans)).init();

    let words = count(Path::new(&directory)).await?;
    println!("{words} words");
    // Sends the spans that are left. It waits for the collector, so not on a thread of tokio.
    tokio::task::spawn_blocking(move || provider.shutdown()).await??;
    Ok(())
}

/// Counts the words of all files below a directory.
async fn count(directory: &Path) -> Result<String, Box<dyn Error>> {
    let objects = DirectoryObjects::scan(directory)?;
    let root = objects.root();
    let guests = NativeRuntime::builder("words", "1").guest("words", words).build()?;
    let dispatcher = Dispatcher::builder().source(objects).observer(TracingSpans::new()).build()?;
    let host = dispatcher.add_runtime(guests)?;
    let words = dispatcher.install(host, "words")?;
    Ok(dispatcher.run(Invocation::new(words).arg("in", root)).await?.text()?)
}

/// The guest: counts the words of a blob, or runs itself for every entry of a tree and adds up the
/// results.
async fn words(guest: NativeGuest) -> manifold::Result<ObjectRef> {
    let input = guest.required("in").await?;
    if input.mode != EntryMode::Tree {
        let content = guest.host().get(input.id).await?;
        let words = String::from_utf8_lossy(&content).split_whitespace().count();
        return guest.blob(words.to_string()).await;
    }
    let mut calls = Vec::new();
    for object in guest.host().tree(input.id).await?.objects() {
        let args = guest.put_tree([argument("in", object)]).await?;
        calls.push(Call { image: guest.job().image.to_string(), args });
    }
    let mut total = 0;
    for result in guest.host().run_many(calls).await {
        let text = guest.host().get(result?.id).await?;
        total += String::from_utf8_lossy(&text).parse::<u64>().unwrap_or_default();
    }
    guest.blob(total.to_string()).await
}
