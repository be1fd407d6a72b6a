//! What a guest cannot do, beyond the checks of the conformance suite.

use std::sync::Arc;
use std::time::Duration;

use example_rhai_runtime::RhaiRuntime;
use manifold::{Code, Error, Limit, Limits, ObjectRef, Reason, Result, Runtime, TestHost};

const MIB: u64 = 1 << 20;

/// How deep expressions may be nested.
const EXPRESSION_DEPTH: usize = 48;

/// Runs a script, and returns its outcome as text.
async fn run(script: &str) -> Result<String> {
    let host = TestHost::new();
    let module = ObjectRef::blob(host.put_blob(script.to_owned()));
    let limits = Limits::default().memory_bytes(16 * MIB).compute_time(Duration::from_secs(20));
    let job = host.job(Code::Module(module), [])?.limits(limits);
    let outcome = RhaiRuntime::with_threads(1)?.run(job, Arc::new(host.clone())).await?;
    Ok(String::from_utf8_lossy(&host.read(outcome.id)?.content).into_owned())
}

async fn fails(script: &str) -> Error {
    match run(script).await {
        Err(error) => error,
        Ok(text) => panic!("{script} returned {text}"),
    }
}

async fn breaches_memory(script: &str) {
    let error = fails(script).await;
    assert!(matches!(error.breached_limit(), Some(Limit::Memory { .. })), "{script}: {error:?}");
}

#[tokio::test]
async fn memory_is_the_sum_of_all_variables() {
    // Each value is small enough.
    let variables: String =
        (0..40).map(|number| format!("let v{number} = blob(500000);\n")).collect();
    breaches_memory(&format!("{variables} v0.len()")).await;
    breaches_memory(
        "fn deeper(held) { let more = blob(500000); if true { deeper(more) } } deeper(1)",
    )
    .await;
    breaches_memory("let a = []; let b = []; let c = []; loop { a.push(1); b += a; c += b; }")
        .await;
}

#[tokio::test]
async fn one_call_cannot_allocate_without_bound() {
    breaches_memory(r#"let a = ""; a.pad(1000000, 'x');"#).await;
    breaches_memory("blob(100000000)").await;
    breaches_memory("let a = []; a.pad(100000000, 1);").await;
    breaches_memory(r#"let a = ""; a.pad(500000, 'x'); let b = a; a.replace("x", b); a.len()"#)
        .await;
    breaches_memory(r#"let a = ""; a.pad(500000, 'x'); let b = a; a.replace('x', b); a.len()"#)
        .await;
}

#[tokio::test]
async fn nesting_is_bounded() {
    breaches_memory("let a = []; loop { a = [a]; }").await;
    breaches_memory("let a = #{}; loop { a = #{ a: a }; }").await;
    // Measuring a large array takes time, so it is done less often.
    breaches_memory("let a = []; a.pad(100000, 1); let b = []; loop { b = [[[[[[b]]]]]]; }").await;
    let error = fails("fn f(n) { f(n + 1) } f(0)").await;
    assert!(matches!(error.breached_limit(), Some(Limit::Stack { .. })), "{error:?}");
    let deep = format!("{}1{}", "(".repeat(1000), ")".repeat(1000));
    let error = fails(&deep).await;
    assert!(matches!(error.reason(), Reason::BadModule { .. }), "{error:?}");
}

/// Calls a function as deep as it may, in code that is nested as deep as it may.
#[tokio::test]
async fn the_deepest_calls_fit_on_the_stack() {
    for (open, close) in [
        ("id(", ")"),
        ("1 + (", ")"),
        ("[", "][0]"),
        ("1 + (if true { ", " } else { 0 })"),
        ("1 + (switch 1 { 1 => ", ", _ => 0 })"),
        ("1 + ({ let a = ", "; a })"),
        ("1 + [0].map(Fn(\"id\"))[0] + (", ")"),
    ] {
        let mut deepest = 0;
        for nested in 1..=EXPRESSION_DEPTH {
            let call = format!("{}f(n - 1){}", open.repeat(nested), close.repeat(nested));
            let script = format!(
                "fn id(x) {{ x }} fn f(n) {{ if n == 0 {{ 1 }} else {{ {call} }} }}
                 put(f(29).to_string())"
            );
            match run(&script).await {
                Ok(_) => deepest = nested,
                Err(error) if matches!(error.reason(), Reason::BadModule { .. }) => break,
                Err(error) => panic!("{open} {nested} times: {error:?}"),
            }
        }
        assert!(deepest > 2 && deepest < EXPRESSION_DEPTH, "{open} {deepest} times");
    }
}

#[tokio::test]
async fn what_is_not_a_function_of_the_job_is_not_there() {
    for script in [
        "timestamp()",
        "sleep(1)",
        "rand()",
        r#"eval("1")"#,
        r#"import "file" as f;"#,
        // The name of an anonymous function is a hash with a random seed.
        "(|x| x).name()",
        "fn f() { this } f()",
        "Fn(\"f\").curry(1)",
        "1.5",
        "get_fn_metadata_list()",
        r#"Fn("sleep").call(1)"#,
    ] {
        let error = fails(script).await;
        assert!(
            matches!(error.reason(), Reason::BadModule { .. } | Reason::Trapped { .. }),
            "{script}: {error:?}"
        );
    }
}

#[tokio::test]
async fn errors_have_the_same_text_everywhere() {
    let text = |error: Error| error.to_string();
    assert_eq!(text(fails("throw \"my words\"").await), "my words");
    assert_eq!(text(fails("throw #{ message: \"my words\" }").await), "my words");
    assert_eq!(text(fails("arg(\"in\")").await), "there is no argument `in`");
    assert_eq!(
        text(fails("let x = args(); x.fly(1, #{})").await),
        "the guest trapped: Function not found: fly (object, i64, map) (line 1, position 19)"
    );
    assert_eq!(text(fails("5").await), "the value of the script is of type i64, not an object");
    assert_eq!(
        text(fails("put(#{ a: 5 })").await),
        "expected an object, found a value of type i64"
    );
}

#[tokio::test]
async fn a_script_sees_the_fields_of_an_error() {
    let script = r#"
        let found = "";
        try { get(args()); } catch (error) { found = error.kind + ": " + error.message; }
        put(found)
    "#;
    let id = manifold::ObjectId::empty_tree();
    assert_eq!(run(script).await.unwrap(), format!("request: object {id} is a tree, not a blob"));
}
