//! The example against a server that takes the place of a collector.

use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Keeps the spans that it receives.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().extend(spans.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|found| found.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => panic!("{key}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spans_of_all_runs_arrive_below_each_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = Collector::default();
    let service = TraceServiceServer::new(collector.clone());
    let server = tonic::transport::Server::builder().add_service(service);
    let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("letters")).unwrap();
    fs::write(directory.path().join("letters/first"), "dear reader").unwrap();
    fs::write(directory.path().join("poem"), "roses are red").unwrap();
    let path = directory.path().to_owned();
    let run = move || {
        let mut example = Command::new(env!("CARGO_BIN_EXE_example-otlp"));
        example.arg(path).env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    server.abort();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "5 words\n");

    let spans = collector.0.lock().unwrap().clone();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let (calls, runs) = (named("call"), named("run"));
    assert_eq!((calls.len(), runs.len(), spans.len()), (1, 4, 5), "{spans:?}");
    assert!(calls[0].parent_span_id.is_empty(), "the root call has no parent");
    for run in &runs {
        let parent = spans.iter().find(|span| span.span_id == run.parent_span_id).unwrap();
        assert_eq!(run.trace_id, parent.trace_id);
        assert!(parent.start_time_unix_nano <= run.start_time_unix_nano);
        assert!(parent.end_time_unix_nano >= run.end_time_unix_nano);
        assert_eq!(text(run, "runtime"), "words");
        assert_eq!(text(run, "request").len(), 40);
        assert_eq!(text(run, "outcome").len(), 40);
    }
    // The call, the root directory, what is in it, and the letter.
    let children = |of: &Span| runs.iter().filter(|run| run.parent_span_id == of.span_id).count();
    let mut counts: Vec<_> = spans.iter().map(children).collect();
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 1, 1, 2]);
}
