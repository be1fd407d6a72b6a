use std::time::Instant;

use manifold::tree_size;
use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Completion, Invocation};

use crate::args::Fold;
use crate::error::CliError;
use crate::input;
use crate::progress::{Progress, spinner};
use crate::report::{self, FoldReport, OutcomeReport, Repeat};
use crate::session::Session;

pub(crate) async fn fold(options: Fold) -> Result<(), CliError> {
    let input = {
        let _spinner = spinner("hashing");
        match &options.rev {
            Some(rev) => input::revision(&options.path, rev)?,
            None => input::directory(&options.path)?,
        }
    };
    let session = Session::new(vec![input.source])?;
    let dispatcher = &session.dispatcher;

    let fold = session.image("fold")?;
    let post = session.image(&options.post)?;
    let mut args = vec![argument("in", input.root), session.text_argument("post", &post)?];
    let pre = options.pre.as_deref().map(|pre| session.image(pre)).transpose()?;
    if let Some(pre) = &pre {
        args.push(session.text_argument("pre", pre)?);
    }
    let invocation = Invocation::new(&fold, dispatcher.put_tree(args)?).salt(options.salt).std(session.std);

    let size = tree_size::measure(dispatcher, input.root)?;
    // The guests are compiled now, all at once, so that the first fold's time is its own.
    let (post_ready, fold_ready) =
        tokio::join!(dispatcher.prepare(&post, Some(session.std)), dispatcher.prepare(&fold, Some(session.std)));
    post_ready.and(fold_ready)?;

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
