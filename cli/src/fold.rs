use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use manifold::tree_size;
use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Completion, Policy};

use crate::args::Fold;
use crate::error::CliError;
use crate::input::{self, Input};
use crate::progress::{Progress, spinner};
use crate::report::{self, FoldReport, OutcomeReport, Repeat};
use crate::session::{LateSource, Session};

/// How long hashing may take before the guests are compiled beside it. A hit needs no guests.
const HASHING: Duration = Duration::from_millis(20);

pub(crate) async fn fold(options: Fold) -> Result<(), CliError> {
    let source = Arc::new(LateSource::default());
    let session = Session::new(options.using.open()?, vec![Arc::clone(&source) as _])?;
    let dispatcher = &session.dispatcher;
    let fold = session.image("fold")?;
    let post = session.image(&options.post)?;
    let pre = options.pre.as_deref().map(|pre| session.image(pre)).transpose()?;

    let mut reading = pin!(read_input(options.path, options.rev));
    let mut compiling = pin!(compile(&session, [Some(&fold), Some(&post), pre.as_ref()]));
    let (input, compiled) = match tokio::time::timeout(HASHING, &mut reading).await {
        Ok(input) => (input?, false),
        Err(_) => {
            let (input, ready) = tokio::join!(reading, &mut compiling);
            let input = input?;
            ready?;
            (input, true)
        }
    };
    source.set(input.source);

    let mut args = vec![argument("in", input.root), session.text_argument("post", &post)?];
    if let Some(pre) = &pre {
        args.push(session.text_argument("pre", pre)?);
    }
    let mut invocation = session.invocation(&fold, dispatcher.put_tree(args)?, &options.salt, &options.using);
    // The first fold's time is its own.
    if !compiled && (options.using.recompute || !dispatcher.remembers(&invocation)?) {
        compiling.await?;
    }

    let size = tree_size::measure(dispatcher, input.root)?;
    // A tree is a frame of fold's and one of the visitor's, a blob is one of the visitor's.
    let expected = size.distinct_trees.saturating_mul(2).saturating_add(size.distinct_blobs);
    let mut repeats = Vec::new();
    let mut completion: Option<Completion> = None;
    for _ in 0..options.repeat {
        let progress = Progress::frames(dispatcher, expected);
        let before = dispatcher.stats();
        let start = Instant::now();
        let completed = dispatcher.run(invocation.clone()).await?;
        let time = start.elapsed();
        drop(progress);
        repeats.push(Repeat::new(time, dispatcher.stats() - before));
        completion = Some(completed);
        // What is computed again is computed again once.
        invocation = invocation.policy(Policy::Reuse);
    }
    dispatcher.flush()?;
    let Some(completion) = completion else { return Ok(()) };

    let report = FoldReport {
        request: completion.request.to_string(),
        result: OutcomeReport::new(dispatcher, completion.outcome)?,
        nodes: size.nodes,
        repeats,
    };
    let text = if options.json { report::json(&report)? } else { report.table() };
    report::print(text.as_bytes())
}

async fn read_input(path: PathBuf, rev: Option<String>) -> Result<Input, CliError> {
    let read = tokio::task::spawn_blocking(move || {
        let _spinner = spinner("hashing");
        match &rev {
            Some(rev) => input::revision(&path, rev),
            None => input::directory(&path),
        }
    });
    read.await.map_err(CliError::InputLost)?
}

/// Has the runtime compile `images`.
async fn compile(session: &Session, images: [Option<&String>; 3]) -> Result<(), CliError> {
    let mut compiling = Vec::new();
    for image in images.into_iter().flatten() {
        compiling.push(session.dispatcher.prepare(image, Some(session.std)));
    }
    Ok(join_all(compiling).await.into_iter().collect::<Result<(), _>>()?)
}
