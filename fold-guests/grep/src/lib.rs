//! A fold visitor that lists the lines that match the argument `pattern`.

mod pattern;

use manifold_guest::{Job, ObjectRef, Result, get};
use manifold_visitor::findings;

fn grep(job: &Job) -> Result<ObjectRef> {
    let pattern = pattern::parse(&get(&job.required("pattern")?.id)?)?;
    findings(job, |line| pattern.is_match(line).then_some(line))
}

manifold_guest::main!(grep);
