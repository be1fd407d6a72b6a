//! The toy guests: one for each program of the suite.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use manifold_conformance::Program;
use manifold_runtime_api::{Call, ObjectRef};

use super::flaw::Flaw;
use super::machine::{Machine, Step, Stop, entry, object_of};

/// The global variable of all guests, where they share one.
static SHARED: AtomicU64 = AtomicU64::new(0);

/// Runs the guest of `program`.
pub(crate) async fn run(program: Program, machine: &mut Machine) -> Step {
    let outcome = match program {
        Program::Echo => machine.argument("in").await?,
        Program::Put => put(machine).await?,
        Program::List => list(machine).await?,
        Program::Measure => {
            let input = machine.argument("in").await?.id;
            let content = machine.get(input).await?;
            machine.put_blob(content.len().to_string()).await?
        }
        Program::Part => {
            let input = machine.argument("in").await?.id;
            let mut text = format!("{}\n", machine.size(input).await?).into_bytes();
            text.extend(machine.part(input, 1, 2).await?);
            machine.put_blob(text).await?
        }
        Program::Recurse => recurse(machine).await?,
        Program::Describe => {
            let text = describe(machine);
            machine.put_blob(text).await?
        }
        Program::FanOut => fan_out(machine).await?,
        Program::Relay => relay(machine).await?,
        Program::Catch => match relay(machine).await {
            Err(Stop::Host(_)) => machine.put_blob("caught").await?,
            result => result?,
        },
        Program::Hold => {
            let bytes = machine.number("bytes").await?;
            machine.hold(bytes).await?;
            relay(machine).await?
        }
        Program::Fail => return Err(Stop::Failed(machine.text("message").await?)),
        Program::Crash => std::panic::resume_unwind(Box::new("the guest crashed")),
        Program::Silent => return Ok(()),
        Program::Spin => return spin(machine).await,
        Program::SpinAndCatch => {
            let end = spin(machine).await;
            caught(machine, end).await?
        }
        Program::Hog => return hog(machine).await,
        Program::HogAndCatch => {
            let end = hog(machine).await;
            caught(machine, end).await?
        }
        Program::Flood => {
            let bytes = machine.number("bytes").await?;
            machine.put_blob(vec![0; bytes as usize]).await?
        }
        Program::Log => {
            let input = machine.argument("in").await?;
            let message = machine.text("in").await?;
            machine.log(message).await?;
            input
        }
        Program::Probe => {
            let found = probe(machine);
            machine.put_blob(found).await?
        }
        Program::Remember => {
            let value = match machine.flaw {
                Some(Flaw::SharedGlobal) => SHARED.fetch_add(1, Ordering::SeqCst) + 1,
                _ => 1,
            };
            machine.put_blob(value.to_string()).await?
        }
    };
    machine.out(outcome).await
}

async fn put(machine: &mut Machine) -> Step<ObjectRef> {
    let input = machine.argument("in").await?.id;
    let content = machine.get(input).await?;
    let stored = machine.put_blob([&*content, &*content].concat()).await?;
    let read = machine.get(stored.id).await?;
    let twice = machine.put_blob(read).await?;
    machine.put_tree(vec![entry("twice", twice)]).await
}

async fn list(machine: &mut Machine) -> Step<ObjectRef> {
    let input = machine.argument("in").await?.id;
    let tree = machine.tree(input).await?;
    let mut names: Vec<_> = tree.entries().iter().map(|entry| entry.name.to_vec()).collect();
    if machine.flaw == Some(Flaw::ReversedTree) {
        names.reverse();
    }
    let lines: Vec<u8> = names.iter().flat_map(|name| [name, &b"\n"[..]].concat()).collect();
    machine.put_blob(lines).await
}

async fn recurse(machine: &mut Machine) -> Step<ObjectRef> {
    let depth = machine.number("depth").await?;
    if depth == 0 {
        return machine.put_blob("0").await;
    }
    let below = machine.put_blob((depth - 1).to_string()).await?;
    let args = machine.put_tree(vec![entry("depth", below)]).await?;
    let image = machine.session.job().image.to_string();
    machine.run(&image, args.id).await
}

fn describe(machine: &Machine) -> String {
    let job = machine.session.job();
    let salt = if machine.flaw == Some(Flaw::SaltIsHidden) { "" } else { &job.salt };
    let std = job.std.map(|id| id.to_string()).unwrap_or_default();
    format!("{}\n{salt}\n{std}", job.image)
}

async fn fan_out(machine: &mut Machine) -> Step<ObjectRef> {
    let image = machine.text("image").await?;
    let input = machine.argument("in").await?.id;
    let tree = machine.tree(input).await?;
    let mut calls = Vec::new();
    for item in tree.entries() {
        let args = machine.put_tree(vec![entry("in", object_of(item)?)]).await?.id;
        calls.push(Call { image: image.clone(), args });
    }
    let results = machine.run_many(calls).await?;
    let named = tree.entries().iter().zip(results);
    let entries = named.map(|(item, outcome)| entry(item.name.to_vec(), outcome)).collect();
    machine.put_tree(entries).await
}

async fn relay(machine: &mut Machine) -> Step<ObjectRef> {
    let image = machine.text("image").await?;
    let args = machine.argument("in").await?.id;
    machine.run(&image, args).await
}

async fn spin(machine: &mut Machine) -> Step {
    machine.tree(machine.session.job().args).await?;
    loop {
        machine.compute().await?;
    }
}

async fn hog(machine: &mut Machine) -> Step {
    loop {
        machine.hold(u64::MAX).await?;
    }
}

/// Names the blob `caught` if the guest could catch `end`.
async fn caught(machine: &mut Machine, end: Step) -> Step<ObjectRef> {
    match end {
        Err(Stop::Breach(_)) if machine.flaw == Some(Flaw::BreachesAreCaught) => {
            machine.forget_breach();
            machine.put_blob("caught").await
        }
        Err(Stop::Breach(error)) => Err(Stop::Breach(error)),
        Err(stop @ Stop::Trap(_)) => Err(stop),
        Err(_) | Ok(()) => machine.put_blob("caught").await,
    }
}

/// Returns what a guest can find out, which is nothing unless the runtime has a flaw.
fn probe(machine: &Machine) -> String {
    let seen = match machine.flaw {
        Some(Flaw::Clock) => format!("{:?}", SystemTime::now()),
        Some(Flaw::InstanceNumber) => machine.instance.to_string(),
        Some(Flaw::NeighborsAreVisible) => machine.running.count().to_string(),
        Some(Flaw::LimitsAreVisible) => machine.session.job().limits.memory_bytes.to_string(),
        _ => "nothing".to_owned(),
    };
    format!("a guest sees {seen}")
}
