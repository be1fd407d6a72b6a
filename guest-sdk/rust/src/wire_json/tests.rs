//! The requests that are sent and the responses that are understood.

use super::*;
use crate::transport::scripted::expect;
use alloc::vec;

fn hex(digits: &str) -> Id {
    Id::from_hex(digits).expect("hex digits")
}

#[test]
fn a_non_utf8_name_is_encoded_and_decoded() {
    let id = hex(&"01".repeat(20));
    let entry = Entry { name: b"caf\xe9".to_vec(), mode: Mode::Executable, id };
    expect(
        r#"{"op":"tree","hash":"0101010101010101010101010101010101010101"}"#,
        r#"{"entries":[{"name":"caf\\xe9","name_b64":"Y2Fm6Q==","kind":"blob","hash":"0101010101010101010101010101010101010101","mode":"100755"}]}"#,
    );
    assert_eq!(tree(&id), Ok(vec![entry.clone()]));
    expect(
        r#"{"op":"job_with_args"}"#,
        r#"{"args":"a0","std":"","salt":"s","image":"i","stack":"","entries":[{"name":"caf\\xe9","name_b64":"Y2Fm6Q==","kind":"blob","hash":"0101010101010101010101010101010101010101","mode":"100755"}]}"#,
    );
    let job = job().expect("a job");
    assert_eq!((&*job.std, &*job.image, &*job.salt), ("", "i", "s"));
    assert_eq!(job.args, core::slice::from_ref(&entry));
    expect(
        r#"{"op":"put_tree","entries":[{"name_b64":"Y2Fm6Q==","mode":"100755","hash":"0101010101010101010101010101010101010101"}]}"#,
        r#"{"hash":"0202"}"#,
    );
    assert_eq!(put_tree(&[entry]), Ok(ObjectRef { kind: Kind::Tree, id: hex("0202") }));
}

#[test]
fn an_error_response_is_returned_with_its_kind_and_chain() {
    expect(
        r#"{"op":"put_blob","bytes_b64":"aGk="}"#,
        r#"{"error":"no \"room\"","kind":"store","chain":["a","b"]}"#,
    );
    let chain = vec!["a".into(), "b".into()];
    let error = Error::from_host("no \"room\"".into(), ErrorKind::Store, chain);
    assert_eq!(put_blob(b"hi"), Err(error));
}

#[test]
fn an_outcome_is_stored_and_named_in_one_request() {
    expect(r#"{"op":"out_blob","bytes_b64":"aGk="}"#, "{}");
    assert_eq!(out_blob(b"hi"), Ok(()));
    expect(r#"{"op":"out_blob","bytes_b64":""}"#, r#"{"error":"no room"}"#);
    assert_eq!(out_blob(b"").map_err(|error| error.message().to_string()), Err("no room".into()));
}

#[test]
fn sizes_and_ranges_are_encoded_and_decoded() {
    let id = hex("a0");
    expect(r#"{"op":"size","hash":"a0"}"#, r#"{"size":18446744073709551615}"#);
    assert_eq!(size(&id), Ok(u64::MAX));
    expect(
        r#"{"op":"get_range","hash":"a0","offset":4294967296,"length":3}"#,
        r#"{"bytes_b64":"dGVz"}"#,
    );
    assert_eq!(get_range(&id, 1 << 32, 3), Ok(b"tes".to_vec()));
    for response in [r#"{"size":"1"}"#, r#"{"size":-1}"#, r#"{"size":1.5}"#, "{}"] {
        expect(r#"{"op":"size","hash":"a0"}"#, response);
        assert_eq!(size(&id), Err(malformed()), "{response}");
    }
}

#[test]
fn run_many_returns_failures_in_order() {
    let args = hex("a0");
    expect(
        r#"{"op":"run_many","reqs":[{"image":"x","args":"a0"},{"image":"y","args":"a0"}]}"#,
        r#"{"results":[{"error":"y failed","kind":"cancelled","chain":["far"]},{"kind":"blob","hash":"b0"}]}"#,
    );
    let outcomes = run_many([("x", &args), ("y", &args)]).expect("the call itself succeeds");
    let blob = ObjectRef { kind: Kind::Blob, id: hex("b0") };
    let error = Error::from_host("y failed".into(), ErrorKind::Cancelled, vec!["far".into()]);
    assert_eq!(outcomes, [Err(error), Ok(blob)]);
    expect(r#"{"op":"run_many","reqs":[]}"#, r#"{"results":[]}"#);
    assert_eq!(run_many([]), Ok(vec![]));
}

#[test]
fn a_malformed_response_is_an_error() {
    for response in ["", "[]", "{}", r#"{"entries":1}"#] {
        expect(r#"{"op":"job_with_args"}"#, response);
        assert_eq!(job().map(|job| job.args), Err(malformed()), "{response}");
    }
    for response in ["", "[]", "{}", r#"{"hash":1}"#, r#"{"hash":"a"#] {
        expect(r#"{"op":"put_blob","bytes_b64":""}"#, response);
        assert_eq!(put_blob(b""), Err(malformed()), "{response}");
    }
}
