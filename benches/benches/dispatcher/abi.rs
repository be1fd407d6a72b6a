//! The guest ABI on the host's side, in both encodings.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::Criterion;
use manifold_benches::{FixedHost, OURS, tree_of};
use manifold_runtime_api::abi::{Encoding, Session};
use manifold_runtime_api::{Call, EntryMode, Host, ObjectId, ObjectRef, Tree, TreeEntry};

use crate::at_once;

pub(crate) fn abi(criterion: &mut Criterion) {
    let (tree, object) = tree_of(10).unwrap();
    let id = object.id();
    let host = FixedHost::new(tree, "a file of some length\n");
    let mut job = host.job(ObjectRef::blob(id));
    job.limits.log_bytes = u64::MAX;
    let session = Session::new(job, Arc::clone(&host) as Arc<dyn Host>);
    let raw = [&[20], id.as_bytes()].concat();
    let text = |text: &str| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let entry = |name: &str| [vec![0], raw.clone(), text(name)].concat();
    let call = [raw.clone(), text(&id.to_string())].concat();
    let call_json = format!(r#"{{"image":"{id}","args":"{id}"}}"#);
    let requests = [
        ("job", r#"{"op":"job"}"#.to_owned(), vec![1]),
        ("job_with_args", r#"{"op":"job_with_args"}"#.to_owned(), vec![13]),
        ("tree", format!(r#"{{"op":"tree","hash":"{id}"}}"#), [&[2], &raw[..]].concat()),
        ("get", format!(r#"{{"op":"get","hash":"{id}"}}"#), [&[3], &raw[..]].concat()),
        (
            "put_blob",
            r#"{"op":"put_blob","bytes_b64":"YSBmaWxlIG9mIHNvbWUgbGVuZ3RoCg=="}"#.to_owned(),
            b"\x04a file of some length\n".to_vec(),
        ),
        (
            "put_tree",
            format!(
                r#"{{"op":"put_tree","entries":[{{"name":"children","mode":"40000","hash":"{id}"}},{{"name":"in","mode":"40000","hash":"{id}"}}]}}"#
            ),
            [vec![5, 2, 0, 0, 0], entry("children"), entry("in")].concat(),
        ),
        (
            "run",
            format!(r#"{{"op":"run","image":"{id}","args":"{id}"}}"#),
            [&[6], &call[..]].concat(),
        ),
        (
            "run_many of 10",
            format!(r#"{{"op":"run_many","reqs":[{}]}}"#, vec![call_json; 10].join(",")),
            [vec![7, 10, 0, 0, 0], call.repeat(10)].concat(),
        ),
        ("log", r#"{"op":"log","msg":"a line"}"#.to_owned(), b"\x09a line".to_vec()),
    ];
    for (operation, json, binary) in &requests {
        let mut group =
            criterion.benchmark_group(format!("ABI round trip on the host's side, {operation}"));
        for (encoding, word, request) in
            [(Encoding::Json, "JSON", json.as_bytes()), (Encoding::Binary, "bytes", &binary[..])]
        {
            group.bench_function(format!("{OURS}, in {word}"), |bencher| {
                bencher.iter(|| at_once(session.call(encoding, request)))
            });
        }
        let directly = directly(&host, &session, operation, id);
        group.bench_function("floor: the host asked directly", |bencher| bencher.iter(&directly));
        group.finish();
    }
}

/// Returns a closure that calls the host's method for `operation`, without the ABI.
fn directly<'a>(
    host: &'a FixedHost,
    session: &'a Session,
    operation: &str,
    id: ObjectId,
) -> Box<dyn Fn() + 'a> {
    fn done<T>(future: impl Future<Output = T>) {
        black_box(at_once(future));
    }
    let call = move || Call { image: id.to_string(), args: id };
    match operation {
        "tree" | "job_with_args" => Box::new(move || done(host.tree(id))),
        "get" => Box::new(move || done(host.get(id))),
        "put_blob" => {
            Box::new(move || done(host.put_blob(Bytes::from_static(b"a file of some length\n"))))
        }
        "put_tree" => Box::new(move || {
            let entry = |name: &str| TreeEntry::new(name, EntryMode::Tree, id);
            done(host.put_tree(Tree::new([entry("children"), entry("in")]).unwrap()));
        }),
        "run" => Box::new(move || done(host.run(call()))),
        "run_many of 10" => {
            Box::new(move || done(host.run_many((0..10).map(|_| call()).collect())))
        }
        "log" => Box::new(|| host.log(black_box("a line"))),
        // The job is part of the session, so there is no call to the host.
        "job" => Box::new(|| {
            black_box(session.job());
        }),
        other => panic!("no operation {other}"),
    }
}
