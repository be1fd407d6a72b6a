//! Invariant 8: everything a guest observes is a function of the key. It observes no ancestors,
//! time, environment, locale or thread timing.

use manifold_dispatcher::api::abi::{Encoding, Session};
use manifold_dispatcher::api::{Call, Limits, ObjectRef};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Budget, Invocation, Policy};
use manifold_testing::Fixture;

/// Guests `witness`, which returns the guest ABI's description of its job, and `above`, which runs
/// its argument `image` with its argument `args`.
fn fixture(permits: usize) -> Fixture {
    let runtime = NativeRuntime::builder("witness", "1")
        .guest("witness", |guest| async move {
            let session = Session::new(guest.job().clone(), guest.host_handle());
            let reply = session.call(Encoding::Json, br#"{"op":"job"}"#).await;
            guest.blob(reply.into_body()).await
        })
        .guest("above", |guest| async move {
            let (image, args) = (guest.text("image").await?, guest.required("args").await?.id);
            let calls = vec![Call { image: image.clone(), args }, Call { image, args }];
            let mut results = guest.host().run_many(calls).await;
            results.swap_remove(1)
        })
        .build()
        .unwrap();
    Fixture::with(runtime, |builder| builder.permits(permits))
}

#[tokio::test]
async fn a_guest_observes_the_same_at_any_depth_and_under_any_policy_and_limits() {
    let mut seen = Vec::new();
    for (permits, depth) in [(1, 0), (2, 0), (1, 1), (2, 3)] {
        for policy in [Policy::Reuse, Policy::DoNotCache, Policy::RecomputeAll] {
            let fixture = fixture(permits);
            let mut image = fixture.image("witness");
            let mut args = fixture.args(&[("some", "argument")]);
            for _ in 0..depth {
                let text = ObjectRef::blob(fixture.dispatcher.put_blob(image).unwrap());
                let entries = [argument("image", text), argument("args", ObjectRef::tree(args))];
                args = fixture.dispatcher.put_tree(entries).unwrap();
                image = fixture.image("above");
            }
            let mut limits = Limits::default();
            limits.memory_bytes /= 1 + depth as u64;
            let invocation =
                Invocation::new(image).args(args).salt("a salt").policy(policy).limits(limits);
            let budget = Budget::new().runs(10 + depth as u64).depth(20);
            let completion = fixture.dispatcher.run(invocation.budget(budget)).await.unwrap();
            seen.push(fixture.text(completion.outcome));
        }
    }
    seen.dedup();
    let [seen] = &seen[..] else { panic!("{seen:#?}") };
    assert!(seen.contains(r#""stack":"""#) && seen.contains("a salt"), "{seen}");
}
