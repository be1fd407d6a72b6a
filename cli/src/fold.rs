use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use manifold::tree_size;
use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Completion, Invocation};

use crate::args::Fold;
use crate::error::CliError;
use crate::input::{self, Input};
use crate::progress::{Progress, spinner};
use crate::report::{self, FoldReport, OutcomeReport, Repeat};
use crate::session::{LateSource, Session};

pub(crate) async fn fold(options: Fold) -> Result<(), CliError> {
    let source = Arc::new(LateSource::default());
    let session = Session::new(vec![Arc::clone(&source) as _])?;
    let dispatcher = &session.dispatcher;
    let fold = session.image("fold")?;
    let post = session.image(&options.post)?;
    let pre = options.pre.as_deref().map(|pre| session.image(pre)).transpose()?;

    // The guests are compiled while the directory is hashed, so that the first fold's time is its own.
    let prepare = |image: &str| {
        let image = image.to_owned();
        async move { dispatcher.prepare(&image, Some(session.std)).await }
    };
    let pre_ready = async {
        match &pre {
            Some(pre) => prepare(pre).await,
            None => Ok(()),
        }
    };
    let (input, fold_ready, post_ready, pre_ready) =
        tokio::join!(read_input(options.path, options.rev), prepare(&fold), prepare(&post), pre_ready);
    let input = input?;
    fold_ready.and(post_ready).and(pre_ready)?;
    source.set(input.source);

    let mut args = vec![argument("in", input.root), session.text_argument("post", &post)?];
    if let Some(pre) = &pre {
        args.push(session.text_argument("pre", pre)?);
    }
    let invocation = Invocation::new(&fold, dispatcher.put_tree(args)?).salt(options.salt).std(session.std);

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
    }
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
