//! Guests that use too much: memory, tables, and what is sent to or by the host.

use manifold_runtime_api::{Limit, Reason};

use crate::{Arena, EMPTY_TREE, answer, guest, out, sends};

/// A guest that ignores the error of a limit cannot return an outcome that depends on the limit.
#[tokio::test]
async fn a_guest_cannot_survive_a_breached_limit() {
    let arena = Arena::new();
    let blob = arena.dispatcher.put_blob(vec![b'x'; 60 << 20]).unwrap();
    let get = format!("{{\"op\":\"get\",\"hash\":\"{blob}\"}}");
    let error = arena.fails("a large blob", &guest(&sends(&[&get, &out()]))).await;
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::Response { .. })), "{error:?}");
}

#[tokio::test]
async fn memory_and_tables_over_the_limit_are_a_breach() {
    let arena = Arena::new();
    let growing =
        guest("(func (export \"caos_run\") (loop (drop (memory.grow (i32.const 16))) (br 0)))");
    let error = arena.fails("growing memory", &growing).await;
    assert!(
        matches!(error.reason(), Reason::LimitBreached(Limit::Memory { bytes: 0x100_0000 })),
        "{error:?}"
    );
    let large = "(module (memory (export \"memory\") 1000) (func (export \"caos_run\")))";
    let error = arena.fails("a large initial memory", large).await;
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::Memory { .. })), "{error:?}");
    let table = guest(
        "(table $t 1 funcref)
         (func (export \"caos_run\") (loop (drop (table.grow $t (ref.null func) (i32.const 10000))) (br 0)))",
    );
    let error = arena.fails("a growing table", &table).await;
    assert!(
        matches!(error.reason(), Reason::LimitBreached(Limit::Table { elements: 100_000 })),
        "{error:?}"
    );

    // The limit applies to the sum, also on the heap, where an instance can have many memories and
    // tables.
    let many = format!(
        "(module {} (memory (export \"memory\") 1) (func (export \"caos_run\")))",
        "(memory 100)".repeat(3)
    );
    let error = arena.fails("many memories", &many).await;
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::Memory { .. })), "{error:?}");
    let many =
        guest(&format!("{} (func (export \"caos_run\"))", "(table 30000 funcref)".repeat(4)));
    let error = arena.fails("many tables", &many).await;
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::Table { .. })), "{error:?}");

    // Reaching a maximum that the guest declares is not a breach.
    let bounded = guest(&answer()).replace("(export \"memory\") 1", "(export \"memory\") 1 2").replace(
        "(func (export \"caos_run\")",
        "(func (export \"caos_run\") (if (i32.ne (memory.grow (i32.const 5)) (i32.const -1)) (then unreachable))",
    );
    assert_eq!(arena.run(wat::parse_str(bounded).unwrap()).await.unwrap(), EMPTY_TREE);
}

/// A thousand vectors over the same 12 MB are 12 GB of text.
#[tokio::test]
async fn standard_output_is_bounded_before_it_is_copied() {
    let arena = Arena::new();
    let body = answer().replace(
        "(func (export \"caos_run\")",
        "(func (export \"caos_run\")
            (local $at i32)
            (drop (memory.grow (i32.const 200)))
            (loop $next
                (i32.store (i32.add (i32.const 4096) (local.get $at)) (i32.const 0))
                (i32.store (i32.add (i32.const 4100) (local.get $at)) (i32.const 12000000))
                (local.set $at (i32.add (local.get $at) (i32.const 8)))
                (br_if $next (i32.lt_u (local.get $at) (i32.const 8192))))
            (drop (call $write (i32.const 1) (i32.const 4096) (i32.const 1024) (i32.const 2048)))",
    );
    let import = "(import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))";
    let text = guest(&body).replacen("(module", &format!("(module {import}"), 1);
    assert_eq!(arena.run(wat::parse_str(text).unwrap()).await.unwrap(), EMPTY_TREE);
}
