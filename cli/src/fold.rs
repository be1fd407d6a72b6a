//! `manifold fold`: folds a directory or a revision.

use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use manifold_cli::tree_size::{self, TreeSize};
use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Invocation, Policy, ScanOptions};
use manifold_runtime_api::ObjectRef;

use crate::args::{Fold, Language};
use crate::error::CliError;
use crate::input::{self, Input};
use crate::patience::Phase;
use crate::places;
use crate::progress::{Progress, spinner};
use crate::report::{self, FoldReport, OutcomeReport, Repeat};
use crate::session::{LateSource, Session};

/// The time that hashing may take before the guests are compiled beside it. They are not compiled
/// at once, because a hit needs no guests.
const COMPILE_DELAY: Duration = Duration::from_millis(20);

pub(crate) async fn fold(options: Fold) -> Result<(), CliError> {
    let source = Arc::new(LateSource::default());
    let session = Session::new(
        options.using.open()?,
        vec![Arc::clone(&source) as _],
        &options.using.session(),
    )?;
    let mut pipelines = Vec::new();
    for language in &options.guest {
        pipelines.push(Pipeline::new(&session, *language, &options).await?);
    }

    Phase::Hashing.begin();
    let mut reading =
        pin!(read_input(options.path.clone(), options.rev.clone(), options.using.reading()?));
    let mut compiling = pin!(compile(&session, &pipelines));
    let (input, compiled) = match tokio::time::timeout(COMPILE_DELAY, &mut reading).await {
        Ok(input) => (input?, false),
        Err(_) => {
            let (input, ready) = tokio::join!(reading, &mut compiling);
            let input = input?;
            ready?;
            (input, true)
        }
    };
    source.set(Arc::clone(&input.source));
    fold_input(&session, &options, &pipelines, &input, (!compiled).then_some(compiling))
        .await
        .map_err(|error| places::explain(error, &session.dispatcher, &input))
}

/// Folds the input with every pipeline and prints the reports. `compiling` is the compilation that
/// is still to do.
async fn fold_input(
    session: &Session,
    options: &Fold,
    pipelines: &[Pipeline],
    input: &Input,
    mut compiling: Option<Pin<&mut (impl Future<Output = Result<(), CliError>> + Send)>>,
) -> Result<(), CliError> {
    let size = tree_size::measure(&session.dispatcher, input.root)?;
    let mut reports = Vec::new();
    for pipeline in pipelines {
        let invocation = pipeline.invocation(session, input.root, options)?;
        // The guests are compiled before the first fold, so that its time does not include that.
        let is_hit = !options.using.recompute && session.dispatcher.is_memoized(&invocation)?;
        Phase::Computing.begin();
        if let Some(compiling) = compiling.take_if(|_| !is_hit) {
            compiling.await?;
        }
        reports.push(repeat(session, pipeline.language, invocation, &size, options.repeat).await?);
    }
    Phase::Storing.begin();
    session.dispatcher.flush()?;
    Phase::Writing.begin();

    let text =
        if options.json { report::fold_json(&reports)? } else { report::fold_table(&reports) };
    report::print(text.as_bytes())?;
    report::check_agreement(&reports)
}

/// The images for a fold in one language.
struct Pipeline {
    language: Language,
    fold: String,
    post: String,
    pre: Option<String>,
}

impl Pipeline {
    async fn new(session: &Session, language: Language, options: &Fold) -> Result<Self, CliError> {
        session.host(language)?;
        let pre = match &options.pre {
            Some(pre) => Some(session.image(pre, language).await?),
            None => None,
        };
        Ok(Self {
            language,
            fold: session.image("fold", language).await?,
            post: session.image(&options.post, language).await?,
            pre,
        })
    }

    fn images(&self) -> impl Iterator<Item = &String> {
        [Some(&self.fold), Some(&self.post), self.pre.as_ref()].into_iter().flatten()
    }

    fn invocation(
        &self,
        session: &Session,
        root: ObjectRef,
        options: &Fold,
    ) -> Result<Invocation, CliError> {
        let mut args = vec![argument("in", root), session.text_argument("post", &self.post)?];
        if let Some(pre) = &self.pre {
            args.push(session.text_argument("pre", pre)?);
        }
        let args = session.arguments(args)?;
        Ok(session.invocation(&self.fold, args, &options.salt, &options.using))
    }
}

/// Folds `times` times and reports each.
async fn repeat(
    session: &Session,
    language: Language,
    mut invocation: Invocation,
    size: &TreeSize,
    times: u32,
) -> Result<FoldReport, CliError> {
    let dispatcher = &session.dispatcher;
    // A tree takes a frame of fold and one of the visitor. A blob takes one of the visitor.
    let expected = size.distinct_trees.saturating_mul(2).saturating_add(size.distinct_blobs);
    let mut repeats = Vec::new();
    loop {
        let progress = (!session.shows_log).then(|| Progress::frames(dispatcher, expected));
        let before = dispatcher.stats();
        let start = Instant::now();
        let completion = dispatcher.run(invocation.clone()).await?;
        let time = start.elapsed();
        drop(progress);
        repeats.push(Repeat::new(time, dispatcher.stats() - before));
        if repeats.len() >= times as usize {
            return Ok(FoldReport {
                guest: language.name(),
                request: completion.request.to_string(),
                result: OutcomeReport::new(dispatcher, completion.outcome)?,
                nodes: size.nodes,
                repeats,
            });
        }
        // Only the first fold recomputes.
        invocation = invocation.policy(Policy::Reuse);
    }
}

/// Hashes or resolves the input on a blocking thread.
async fn read_input(
    path: PathBuf,
    rev: Option<String>,
    reading: ScanOptions,
) -> Result<Input, CliError> {
    let read = tokio::task::spawn_blocking(move || {
        let _spinner = spinner("hashing");
        match &rev {
            Some(rev) => input::revision(&path, rev),
            None => input::directory(&path, &reading),
        }
    });
    read.await.map_err(CliError::InputLost)?
}

/// Prepares the images of the pipelines in their runtimes.
async fn compile(session: &Session, pipelines: &[Pipeline]) -> Result<(), CliError> {
    let images = pipelines.iter().flat_map(Pipeline::images);
    let compiling = images.map(|image| session.dispatcher.prepare(image, Some(session.std)));
    Ok(join_all(compiling).await.into_iter().collect::<Result<(), _>>()?)
}
