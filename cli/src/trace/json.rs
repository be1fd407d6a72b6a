//! Parts of a trace as JSON.

use manifold_dispatcher::Phase;
use manifold_trace::{PathReport, SpanRecord, Trace, Waterfall};
use serde_json::{Map, Value as Json, json};

fn span(trace: &Trace, span: &SpanRecord) -> Map<String, Json> {
    let phases = Phase::ALL.iter().filter(|phase| !span.phase(**phase).is_zero());
    let phases: Map<_, _> = phases
        .map(|phase| (phase.as_str().to_owned(), json!(span.phase(*phase).as_secs_f64())))
        .collect();
    let value = json!({
        "id": span.id,
        "parent": span.parent,
        "kind": span.kind().as_str(),
        "image": trace.image(span),
        "runtime": trace.runtime(span),
        "request": trace.request(span).map(|request| request.to_string()),
        "path": trace.detail(span),
        "depth": span.depth,
        "began_seconds": span.began().as_secs_f64(),
        "seconds": span.duration().as_secs_f64(),
        "own_seconds": span.own().as_secs_f64(),
        "phases": phases,
        "read_bytes": span.read_bytes,
        "written_bytes": span.written_bytes,
        "memory_bytes": span.memory_bytes,
        "fuel": span.fuel,
        "memoized": span.memoized,
        "error": trace.error(span),
    });
    match value {
        Json::Object(value) => value,
        _ => Map::new(),
    }
}

pub(super) fn spans(trace: &Trace, spans: &[&SpanRecord]) -> Json {
    spans.iter().map(|one| Json::Object(span(trace, one))).collect()
}

pub(super) fn path(trace: &Trace, path: &PathReport<'_>) -> Json {
    let steps = path.steps.iter().map(|(one, level, own)| {
        let mut step = span(trace, one);
        step.insert("level".to_owned(), json!(level));
        step.insert("seconds_on_path".to_owned(), json!(own.as_secs_f64()));
        Json::Object(step)
    });
    json!({ "steps": steps.collect::<Json>(), "delays": path.delays })
}

pub(super) fn waterfall(trace: &Trace, waterfall: &Waterfall<'_>) -> Json {
    let rows = waterfall.rows().iter().map(|row| {
        let mut value = span(trace, row.span);
        value.insert("level".to_owned(), json!(row.level));
        value.insert("hidden_children".to_owned(), json!(row.hidden));
        Json::Object(value)
    });
    rows.collect()
}
