//! How code executes: traps, deep recursion, modules that do not fit the pool, and NaN bits.

use manifold_runtime_api::{ErrorKind, Limit, Reason};

use crate::{Arena, EMPTY_TREE, answer, guest};

#[tokio::test]
async fn traps_and_deep_recursion_are_typed_errors() {
    let arena = Arena::new();
    let error = arena
        .fails(
            "unreachable",
            &guest("(func $boom unreachable) (func (export \"caos_run\") (call $boom))"),
        )
        .await;
    assert!(
        matches!(error.reason(), Reason::Trapped { trap } if trap.contains("unreachable") && trap.contains("boom")),
        "{error:?}"
    );
    assert_eq!(error.kind(), ErrorKind::Guest);
    let error = arena
        .fails(
            "division",
            &guest("(func (export \"caos_run\") (drop (i32.div_u (i32.const 1) (i32.const 0))))"),
        )
        .await;
    assert!(
        matches!(error.reason(), Reason::Trapped { trap } if trap.contains("divide by zero")),
        "{error:?}"
    );
    let error = arena
        .fails("recursion", &guest("(func $f (export \"caos_run\") (call $f) (call $f))"))
        .await;
    assert!(matches!(error.reason(), Reason::LimitBreached(Limit::Stack { .. })), "{error:?}");
}

/// A module with two memories does not fit a slot of the pool, and runs on the heap instead.
#[tokio::test]
async fn a_module_that_does_not_fit_the_pool_runs_on_the_heap() {
    let arena = Arena::new();
    let text = guest(&format!("(memory $second 1) {}", answer()));
    assert_eq!(arena.run(wat::parse_str(text).unwrap()).await.unwrap(), EMPTY_TREE);
}

/// The bits of a NaN, the only nondeterminism of floats in wasm, are canonical.
#[tokio::test]
async fn nan_bits_are_canonical() {
    let arena = Arena::new();
    let body = answer().replace(
        "(func (export \"caos_run\")",
        "(func (export \"caos_run\")
            (if (i32.ne (i32.const 0x7fc00000) (i32.reinterpret_f32 (f32.div (f32.const 0) (f32.const 0))))
                (then unreachable))
            (if (i32.ne (i32.const 0x7fc00000)
                        (i32.reinterpret_f32 (f32.add (f32.reinterpret_i32 (i32.const 0xffc12345)) (f32.const 1))))
                (then unreachable))",
    );
    assert_eq!(arena.run(wat::parse_str(guest(&body)).unwrap()).await.unwrap(), EMPTY_TREE);
}
