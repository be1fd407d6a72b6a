//! `manifold fold`: folds a directory or a revision.

mod explanation;
mod failures;
mod results;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use manifold_cli::tree_size::{self, TreeSize};
use manifold_dispatcher::native::argument;
use manifold_dispatcher::{
    CallError, Completion, Invocation, ObjectSource, Observer, Policy, ScanOptions, Store,
};
use manifold_runtime_api::{ObjectRef, TreeEntry};

use crate::args::{Fold, Language};
use crate::arguments::Arguments;
use crate::error::CliError;
use crate::explain::Names;
use crate::huge_pages;
use crate::input::{self, Input};
use crate::live::{Live, Running, Subject};
use crate::patience::Phase;
use crate::pins;
use crate::places;
use crate::progress::can_draw;
use crate::report::{self, FoldReport, OutcomeReport, Repeat};
use crate::say::warn;
use crate::session::{LateSource, Session};

pub(crate) use explanation::Explanation;
pub(crate) use failures::FailedFrame;
pub(crate) use results::DirectoryReport;

/// The time that hashing may take before the guests are compiled beside it. They are not compiled
/// at once, because a hit needs no guests.
const COMPILE_DELAY: Duration = Duration::from_millis(20);

pub(crate) async fn fold(options: Fold) -> Result<(), CliError> {
    Phase::Hashing.begin();
    if options.rev.is_none() {
        huge_pages::disable();
    }
    let source = Arc::new(LateSource::default());
    let arguments = Arguments::read(&options.args, &options.using.reading()?)?;
    let mut sources: Vec<Arc<dyn ObjectSource>> = vec![Arc::clone(&source) as _];
    sources.extend(arguments.sources());
    let (store, cache) = options.cache.begin(&options.using)?;
    let running = Arc::new(Running::default());
    let mut settings = options.using.session();
    if can_draw() {
        settings.observe(Arc::clone(&running) as Arc<dyn Observer>);
    }
    if options.keep_going {
        settings.record();
    }
    let session = options.nodes.session(Arc::clone(&store), cache, sources, settings).await?;
    let with = arguments.for_visitors(&session)?;
    let mut pipelines = Vec::new();
    for language in &options.guest {
        pipelines.push(Pipeline::new(&session, *language, &options, with.clone()).await?);
    }

    let start = Instant::now();
    let reading = options.leaving_out.apply(options.using.reading()?);
    let mut reading = pin!(read_input(options.path.clone(), options.rev.clone(), reading));
    let mut compiling = pin!(compile(&session, &pipelines));
    let (scanned, compiled) = match tokio::time::timeout(COMPILE_DELAY, &mut reading).await {
        Ok(scanned) => (scanned?, false),
        Err(_) => {
            let (scanned, ready) = tokio::join!(reading, &mut compiling);
            let scanned = scanned?;
            ready?;
            (scanned, true)
        }
    };
    let (input, end) = scanned;
    let scan_time = end - start;
    let compiling =
        if compiled { Compiling::Done(end.elapsed()) } else { Compiling::Todo(compiling) };
    source.set(Arc::clone(&input.source));
    session.tracing.input(&input, &options.path, options.rev.as_deref());
    let place = Place { store, running };
    let folded = fold_input(&session, place, &options, &pipelines, &input, scan_time, compiling)
        .await
        .map_err(|error| places::explain(error, &session.dispatcher, &input));
    session.leave().await;
    folded
}

/// Where a fold keeps what it computes, and what it does now.
struct Place {
    store: Arc<dyn Store>,
    running: Arc<Running>,
}

/// The compilation of the guests.
enum Compiling<F> {
    /// It is still to do.
    Todo(F),
    /// It took this long after the scan.
    Done(Duration),
}

/// Folds the input with every pipeline and prints the reports.
async fn fold_input(
    session: &Session,
    Place { store, running }: Place,
    options: &Fold,
    pipelines: &[Pipeline],
    input: &Input,
    scan_time: Duration,
    mut compiling: Compiling<impl Future<Output = Result<(), CliError>> + Unpin + Send>,
) -> Result<(), CliError> {
    let mut size = Size { known: input.nodes, measured: None };
    let (mut reports, mut lines) = (Vec::new(), String::new());
    for pipeline in pipelines {
        let invocation = pipeline.invocation(session, input.root, options)?;
        let request = session.dispatcher.request(&invocation)?;
        // The guests are compiled before the first fold, so that its time does not include that.
        let is_hit = session.look_up(&invocation).await?;
        if !is_hit {
            huge_pages::disable();
        }
        Phase::Computing.begin();
        let compile_time = match &mut compiling {
            Compiling::Todo(_) if is_hit => Duration::ZERO,
            Compiling::Todo(todo) => {
                let start = Instant::now();
                todo.await?;
                start.elapsed()
            }
            Compiling::Done(time) => *time,
        };
        // All guests are compiled with those of the first pipeline.
        if !is_hit {
            compiling = Compiling::Done(Duration::ZERO);
        }
        // The number of frames is only shown on a terminal.
        let draws = !session.shows_log && can_draw();
        let expected =
            if draws && !is_hit { Some(size.expected_frames(session, input).await?) } else { None };
        let live =
            (!is_hit && !session.shows_log).then(|| subject(session, input, &running, expected));
        let fold = match repeat(session, invocation, live, options.repeat).await {
            Ok(fold) => fold,
            Err(error) => {
                // What was computed nevertheless is shared.
                session.finish_cache(&options.using).await;
                let lists = options.keep_going;
                return Err(failures::explain(error, session, input, request, lists));
            }
        };
        if options.using.keeps_provenance() && !options.using.no_pin {
            let name = pins::input_name(&options.path, options.rev.as_deref());
            session.dispatcher.set_note(fold.completion.request, &name)?;
        }
        let explanation = explanation::after(session, &store, options, input, &fold)?;
        let tree = match (options.tree, options.using.keeps_provenance()) {
            (true, true) => results::of_directories(
                &session.dispatcher,
                fold.completion.request,
                options.depth,
            )?,
            _ => Vec::new(),
        };
        let outcome = fold.completion.outcome;
        let result = if options.json {
            OutcomeReport::with_values(&session.dispatcher, outcome)?
        } else {
            OutcomeReport::new(&session.dispatcher, outcome)?
        };
        // Guests that agree have the same lines.
        if !options.json && lines.is_empty() {
            lines = result.lines(&session.dispatcher, outcome)?;
        }
        reports.push(FoldReport {
            guest: pipeline.language.name(),
            request: fold.completion.request.to_string(),
            result,
            nodes: size.nodes(session, input).await?,
            scan_seconds: scan_time.as_secs_f64(),
            compile_seconds: compile_time.as_secs_f64(),
            repeats: fold.repeats,
            tree,
            explanation,
            cache: None,
        });
    }
    Phase::Storing.begin();
    session.dispatcher.flush()?;
    if options.json {
        let exchanged = session.finish_cache(&options.using).await;
        if let Some(report) = reports.first_mut() {
            report.cache = exchanged;
        }
    }
    Phase::Writing.begin();
    session.tracing.end()?;
    if options.json {
        report::print(report::fold_json(&reports)?.as_bytes())?;
    } else {
        report::print(report::fold_table(&reports, &lines).as_bytes())?;
        report::print(session.nodes_line().as_bytes())?;
        // The user need not wait for what is sent.
        if let Some(exchanged) = session.finish_cache(&options.using).await {
            report::print(exchanged.line().as_bytes())?;
        }
    }
    report::check_agreement(&reports)
}

/// The images for a fold in one language.
struct Pipeline {
    language: Language,
    fold: String,
    post: String,
    pre: Option<String>,
    /// The argument with the arguments of the visitors.
    with: Option<TreeEntry>,
}

impl Pipeline {
    async fn new(
        session: &Session,
        language: Language,
        options: &Fold,
        with: Option<TreeEntry>,
    ) -> Result<Self, CliError> {
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
            with,
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
        args.extend(self.with.clone());
        let args = session.arguments(args)?;
        Ok(session.invocation(&self.fold, args, &options.salt, &options.using))
    }
}

/// The size of the input, as far as it is known.
struct Size {
    known: Option<u64>,
    measured: Option<TreeSize>,
}

impl Size {
    /// Measures the input. That is a memoized function, so a tree is measured once.
    async fn measure(&mut self, session: &Session, input: &Input) -> Result<TreeSize, CliError> {
        if let Some(size) = self.measured {
            return Ok(size);
        }
        let (source, root) = (Arc::clone(&input.source), input.root);
        let measure =
            session.dispatcher.try_function("size of a tree", "1", move |_: String| {
                let source = Arc::clone(&source);
                async move { tree_size::measure(&*source, root) }
            })?;
        let size = measure.unpinned().call(root.id.to_string()).await;
        let size = size.map_err(|error| match error {
            CallError::Function(error) => (*error).clone(),
            CallError::Dispatch(error) => error,
        })?;
        self.measured = Some(size);
        Ok(size)
    }

    /// Returns the number of nodes.
    async fn nodes(&mut self, session: &Session, input: &Input) -> Result<u64, CliError> {
        match self.known {
            Some(nodes) => Ok(nodes),
            None => Ok(self.measure(session, input).await?.nodes),
        }
    }

    /// Returns the number of frames of a fold: for a tree, one of fold and one of the visitor; for a
    /// blob, one of the visitor.
    async fn expected_frames(&mut self, session: &Session, input: &Input) -> Result<u64, CliError> {
        let size = self.measure(session, input).await?;
        Ok(size.distinct_trees.saturating_mul(2).saturating_add(size.distinct_blobs))
    }
}

/// A fold that was repeated.
struct Folded {
    completion: Completion,
    repeats: Vec<Repeat>,
}

/// What is shown while the input is folded.
fn subject(
    session: &Session,
    input: &Input,
    running: &Arc<Running>,
    expected: Option<u64>,
) -> Subject {
    let (dispatcher, input) = (session.dispatcher.clone(), input.clone());
    let path_of = move |args| places::path_of_args(&dispatcher, &input, args);
    Subject {
        dispatcher: session.dispatcher.clone(),
        running: Arc::clone(running),
        expected,
        path_of: Arc::new(path_of),
        names: Names::read(&session.dispatcher, &[session.std, session.standard]),
    }
}

/// Folds `times` times. Shows what happens, if `live` is given.
async fn repeat(
    session: &Session,
    mut invocation: Invocation,
    live: Option<Subject>,
    times: u32,
) -> Result<Folded, CliError> {
    let dispatcher = &session.dispatcher;
    let mut repeats = Vec::new();
    let mut live = live.map(Live::show);
    loop {
        let before = dispatcher.stats();
        let start = Instant::now();
        let completion = session.run(invocation.clone()).await?;
        let time = start.elapsed();
        drop(live.take());
        repeats.push(Repeat::new(time, dispatcher.stats() - before));
        if repeats.len() >= times as usize {
            return Ok(Folded { completion, repeats });
        }
        // Only the first fold recomputes.
        invocation = invocation.policy(Policy::Reuse);
    }
}

/// Hashes or resolves the input on a blocking thread. Returns also when that was done.
async fn read_input(
    path: PathBuf,
    rev: Option<String>,
    reading: ScanOptions,
) -> Result<(Input, Instant), CliError> {
    let read = tokio::task::spawn_blocking(move || {
        let input = match &rev {
            Some(rev) => input::revision(&path, rev)?,
            None => {
                hint_at_bare_repository(&path);
                input::directory(&path, &reading)?
            }
        };
        Ok((input, Instant::now()))
    });
    read.await.map_err(CliError::InputLost)?
}

/// Prepares the images of the pipelines in their runtimes.
async fn compile(session: &Session, pipelines: &[Pipeline]) -> Result<(), CliError> {
    let images = pipelines.iter().flat_map(Pipeline::images);
    let compiling = images.map(|image| session.dispatcher.prepare(image, Some(session.std)));
    Ok(join_all(compiling).await.into_iter().collect::<Result<(), _>>()?)
}

/// Says how to fold the commits of a bare repository, if `path` is one. Its own files are rarely
/// what is meant.
fn hint_at_bare_repository(path: &Path) {
    let is_bare = path.join("HEAD").is_file()
        && ["objects", "refs"].iter().all(|name| path.join(name).is_dir());
    if is_bare {
        warn(&format!(
            "{} is a bare git repository, and its own files are folded; --rev HEAD folds its latest \
             commit",
            path.display()
        ));
    }
}
