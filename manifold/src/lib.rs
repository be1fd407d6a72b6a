//! Manifold runs pure functions over git objects and never runs the same one twice.
//!
//! A *request* is a git tree: an image, its arguments, a salt and a tree of named images. Its id is
//! the memo key. A [`Dispatcher`] looks the key up, and on a miss the [`Runtime`] that the image
//! names runs the request. A guest can run other guests, or itself, so a recursive function over a
//! directory is thousands of runs of some microseconds each, and a change recomputes only what
//! depends on it.
//!
//! ```
//! use manifold::native::NativeRuntime;
//! use manifold::{Dispatcher, Invocation};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let guests = NativeRuntime::builder("example", "1").guest("shout", |guest| async move {
//!         guest.blob(guest.text("in").await?.to_uppercase()).await
//!     });
//!     let dispatcher = Dispatcher::builder().build()?;
//!     let host = dispatcher.add_runtime(guests.build()?)?;
//!     let shout = dispatcher.install(host, "shout")?;
//!     let first = dispatcher.run(Invocation::new(shout).arg("in", "hello")).await?;
//!     assert_eq!(first.text()?, "HELLO");
//!     let second = dispatcher.run(Invocation::new(shout).arg("in", "hello")).await?;
//!     assert!(second.from_memo);
//!     Ok(())
//! }
//! ```
//!
//! The guide for embedders is `docs/embedding.md` in the repository. The directory `examples` of
//! this crate has complete programs.
//!
//! # Core concepts
//!
//! | term | meaning |
//! |---|---|
//! | **object** | A git blob or tree, named by its object id, as git computes it. |
//! | **request** | One application of an image to arguments: a git tree of `image`, `args`, `salt` and `std`. Its id is the memo key. |
//! | **outcome** | The kind and id of the object that a run produced. Also called its *result*. |
//! | **arguments** | A tree whose entries are a guest's arguments: each has a name, and is a blob or a tree. |
//! | **named images**, **salt** | A tree whose entries guests call as `/cas/std/<name>`, and a text that changes the ids of requests and nothing else. |
//! | **memo** | The map from requests to outcomes. A request that is in it is a *hit*; any other is a *miss* and has to be run. |
//! | **image** | What a request names as its code: a *runtime node* (a host image hash and a module), a *curry node* (another image with bound arguments), a name in the tree of named images (`/cas/std/<name>`), or a container image (`docker://…`). |
//! | **module** | The code of a guest as an object: a blob, or a tree of files. |
//! | **host image** | A git tree that describes a runtime completely. Its id, the *host image hash*, selects the runtime. See [below](#what-is-a-host-image). |
//! | **runtime** | What executes guests: wasmtime, V8, containers, closures of this process, or your own [`Runtime`]. |
//! | **guest** | The code that a runtime executes. It reads objects, stores objects and runs other guests through its [`Host`], and nothing else: in wasm and V8 it can reach nothing else, and native guests and containers are trusted not to. |
//! | **host** | What a guest calls ([`Host`]). (A *host container* is something else: a container that runs modules.) |
//! | **run** | To execute a request, and one such execution. The attempt that its guest sees is a *frame*, and the dispatcher's record of it is a *flight*. |
//! | **job** | What a runtime gets for a frame ([`Job`]): the code, the arguments and the limits. |
//! | **frame** | One execution of a guest, from its start to its outcome. A frame that waits for nested runs is *suspended*. |
//! | **flight** | An execution in progress. All callers that want its request wait for it: each request has at most one flight. |
//! | **permit** | The right to compute. There is one for each core by default. A suspended frame holds none, so a recursion of any depth completes with one permit. |
//! | **embedder** | The program that uses this library. |
//! | **root call** | A call that the embedder makes, with [`Dispatcher::run`]. Runs that guests start are *nested* in it. |
//! | **scope** | What a root call and all runs nested in it share: salt, named images, limits, budget and counters. |
//! | **limit**, **budget** | A bound for one frame ([`Limits`]), and a bound for a root call with all its nested runs ([`Budget`]). To exceed one is a *breach*. |
//! | **store**, **source** | A [`Store`] keeps objects, memo and pins. An [`ObjectSource`] supplies objects that can only be read: a directory, or a git repository. |
//! | **visitor** | A guest that the standard guest `fold` calls on each node of a tree. |
//! | **pin** | A mark that keeps the outcome of a request, and all objects it reaches, from garbage collection. |
//!
//! # Which feature do I need?
//!
//! | to … | feature | it adds |
//! |---|---|---|
//! | pass directories as arguments | `directory` (default) | [`DirectoryObjects`] |
//! | keep results in a file that outlives the process | `durable` | [`DurableStore`] |
//! | memoize ordinary async Rust functions | `functions` | [`Dispatcher::function`], [`Dispatcher::try_function`] |
//! | read objects of git repositories | `git` | [`GitObjects`] |
//! | run WebAssembly guests, on wasmtime | `wasm` | [`wasm`] |
//! | run TypeScript and JavaScript guests, on V8 | `v8` | [`v8`] |
//! | run guests in containers, through a container engine such as Docker | `docker` | [`docker`] |
//! | use `fold` and its visitors | `standard-guests` | [`standard_guests`] |
//! | share results with other machines through a cache server | `cache` | [`cache`] |
//! | let other machines take over runs | `nodes` | [`nodes`] |
//!
//! Without any feature you have the dispatcher, the in-memory store and native guests.
//!
//! `wasm` and `v8` add most to the time of a build. The build of V8 downloads a prebuilt library.
//! `docker` needs nothing extra to build, and a container engine when its guests run.
//! `standard-guests` embeds the guests, but no runtime: enable `wasm`, `v8` or `docker` with it.
//!
//! With `v8`, the program starts its own executable again to transpile TypeScript. The second
//! process takes that role before `main`, when the variable `MANIFOLD_HELPER` is set. V8 also gets a
//! handler for the signal `SIGABRT`.
//!
//! [`Dispatcher::run`] needs a tokio runtime: that of its caller, or the one that
//! [`DispatcherBuilder::executor`] sets. Deadlines and limits on time need no timer of tokio.
//!
//! Manifold is tested on Linux and macOS. It needs Rust 1.95, and a C compiler for some features.
//!
//! # What is a host image?
//!
//! The description of a [`Runtime`]: a git tree with one blob for each setting, among them the name
//! of the runtime, the version of its engine, the version of the guest ABI, and every setting that
//! can change an outcome. [`Runtime::host_image`] returns it. Its id is the *host image hash*.
//!
//! An image for a runtime is a tree of two entries: the host image hash and the module.
//! [`Dispatcher::install`] makes one. Because the image is a part of every request, a new version of
//! a runtime never returns results of an old one: after an update of Manifold, results of wasm and
//! TypeScript guests may be computed again. Two processes that register the same runtime share
//! results. [`Dispatcher::add_runtime`] returns the host image hash, and
//! [`Dispatcher::runtimes`] lists the host images that are registered.
//!
//! Settings that only bound resources or make runs faster, such as a memory limit or a pool size,
//! are not part of it, because they never change an outcome.
//!
//! # When is a result not memoized?
//!
//! - The run failed. The error reaches every caller that waits for the run, and is not recorded.
//! - The run succeeded after it had seen a failure that its request alone does not decide: a breach
//!   of a limit or budget, a cycle, a missing object, a runtime that failed or is not registered, a
//!   failed store, a cancelled run, or an error of a `try_function`. Such an outcome reaches the
//!   callers that wait for it. It is neither memoized nor pinned, and neither are the outcomes of
//!   the runs that use it.
//! - The policy of the root call is [`Policy::DoNotCache`]. Nested runs use the memo.
//! - Every caller stopped waiting before the run ended.
//!
//! A memoized result is computed again if its object is lost, for example by a collection, and if
//! the policy is [`Policy::Recompute`] or [`Policy::RecomputeAll`]. [`Completion::from_memo`] tells
//! whether a result came from the memo. Without a [`DurableStore`] the memo is in memory, and ends
//! with the dispatcher.
//!
//! Nothing checks that a native guest, a function or a container is pure. If one reads a clock, its
//! first outcome is memoized.
//!
//! # How do I bound a run?
//!
//! [`Limits`] bound one frame: memory, tables, computing time, fuel, and the sizes of the
//! guest's messages to its host, of the responses, of modules and of logs. [`Budget`] bounds a root call with all its nested runs: a deadline,
//! fuel, memory, depth, number of runs and bytes stored. Set both for every call with
//! [`DispatcherBuilder::limits`] and [`DispatcherBuilder::budget`], and tighter ones for one call
//! with [`Invocation::limits`] and [`Invocation::budget`]. The error of a breach is
//! [`Reason::LimitBreached`], and [`Error::breached_limit`] finds it in a chain.
//!
//! ```
//! # use std::time::Duration;
//! # use manifold::native::NativeRuntime;
//! # use manifold::{Budget, Dispatcher, Invocation};
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let guests = NativeRuntime::builder("example", "1").guest("shout", |guest| async move {
//! #     guest.blob(guest.text("in").await?.to_uppercase()).await
//! # });
//! # let dispatcher = Dispatcher::builder().build()?;
//! # let shout = dispatcher.install(dispatcher.add_runtime(guests.build()?)?, "shout")?;
//! let budget = Budget::default().deadline(Duration::from_secs(10));
//! let invocation = Invocation::new(shout).arg("in", "hello").budget(budget);
//! match dispatcher.run(invocation).await {
//!     Ok(completion) => println!("{}", completion.text()?),
//!     Err(error) => eprintln!("{error}, limit: {:?}", error.breached_limit()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Without these calls, a frame has 256 MiB of memory and 60 s of computing time, and a call has an
//! hour, 16 GiB of memory, 200,000 levels, 100 million runs and 64 GiB of stored objects.
//!
//! [`DispatcherBuilder::permits`] bounds how many frames compute at once, and
//! [`DispatcherBuilder::width`] how many runs of one `run_many` are in progress (16).
//!
//! To cancel a call, drop its future. Its runs stop, except those that another caller waits for.
//!
//! Native guests and functions are trusted: [`Limits`] do not apply to them. A budget does, except
//! for memory, which they do not report. With a bound on fuel the dispatcher refuses to run them,
//! because they do not measure it. A native guest that computes without ever awaiting anything cannot be stopped.
//!
#![cfg_attr(
    not(feature = "cache"),
    doc = "[`cache`]: https://docs.rs/manifold/latest/manifold/cache/index.html"
)]
#![cfg_attr(
    not(feature = "directory"),
    doc = "[`DirectoryObjects`]: https://docs.rs/manifold/latest/manifold/struct.DirectoryObjects.html"
)]
#![cfg_attr(
    not(feature = "docker"),
    doc = "[`docker`]: https://docs.rs/manifold/latest/manifold/docker/index.html"
)]
#![cfg_attr(
    not(feature = "durable"),
    doc = "[`DurableStore`]: https://docs.rs/manifold/latest/manifold/struct.DurableStore.html"
)]
#![cfg_attr(
    not(feature = "functions"),
    doc = "[`Dispatcher::function`]: https://docs.rs/manifold/latest/manifold/struct.Dispatcher.html#method.function\n[`Dispatcher::try_function`]: https://docs.rs/manifold/latest/manifold/struct.Dispatcher.html#method.try_function"
)]
#![cfg_attr(
    not(feature = "git"),
    doc = "[`GitObjects`]: https://docs.rs/manifold/latest/manifold/struct.GitObjects.html"
)]
#![cfg_attr(
    not(feature = "nodes"),
    doc = "[`nodes`]: https://docs.rs/manifold/latest/manifold/nodes/index.html"
)]
#![cfg_attr(
    not(feature = "standard-guests"),
    doc = "[`standard_guests`]: https://docs.rs/manifold/latest/manifold/standard_guests/index.html"
)]
#![cfg_attr(
    not(feature = "v8"),
    doc = "[`v8`]: https://docs.rs/manifold/latest/manifold/v8/index.html"
)]
#![cfg_attr(
    not(feature = "wasm"),
    doc = "[`wasm`]: https://docs.rs/manifold/latest/manifold/wasm/index.html"
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[doc(inline)]
pub use manifold_dispatcher::{
    Arrived, Budget, Completion, CriticalPath, Dispatcher, DispatcherBuilder, Event, Held, Input,
    Invocation, LongRun, MemoryStore, ObjectSource, Observed, Observer, PathSpan, PathStep, Phase,
    Phases, Pin, Policy, Progress, Provenance, Span, SpanId, SpanInfo, SpanKind, Spent, Stats,
    Store, Unit, Usage, WaitingRun, layers, native,
};
#[cfg(feature = "functions")]
#[cfg_attr(docsrs, doc(cfg(feature = "functions")))]
#[doc(inline)]
pub use manifold_dispatcher::{CallError, Function};
#[cfg(feature = "durable")]
#[cfg_attr(docsrs, doc(cfg(feature = "durable")))]
#[doc(inline)]
pub use manifold_dispatcher::{
    Collected, Damage, DurableStore, Keep, OpenError, StoreCommit, StoreOptions, StoreWait,
    VerifyReport,
};
#[cfg(feature = "git")]
#[cfg_attr(docsrs, doc(cfg(feature = "git")))]
#[doc(inline)]
pub use manifold_dispatcher::{Commit, GitObjects, History};
#[cfg(feature = "directory")]
#[cfg_attr(docsrs, doc(cfg(feature = "directory")))]
#[doc(inline)]
pub use manifold_dispatcher::{DirectoryError, DirectoryObjects, ScanOptions, ScanProgress};
#[doc(inline)]
pub use manifold_runtime_api::{
    CURRY_MARKER, Call, Capabilities, Code, CurryNode, DockerReference, EncodedNode, EntryMode,
    Error, ErrorKind, Frame, Host, HostImage, HostImageBuilder, HostRef, IdError, ImageProblem,
    ImageRef, Job, JobPhase, Limit, Limits, MAX_IMAGE_DEPTH, MemoryReservation, Meter, NameProblem,
    NodeShape, Object, ObjectId, ObjectKind, ObjectRef, RUNTIME_MARKER, Reason, Report, Request,
    RequestScope, Result, Runtime, RuntimeNode, Status, Stopwatch, TestHost, Tree, TreeEntry,
    TreeError, abi,
};
// For implementers, because public traits and signatures use them.
#[doc(no_inline)]
pub use manifold_runtime_api::{async_trait, bstr, bytes};

#[cfg(feature = "cache")]
#[cfg_attr(docsrs, doc(cfg(feature = "cache")))]
#[doc(inline)]
pub use manifold_cache_reapi as cache;
#[cfg(feature = "nodes")]
#[cfg_attr(docsrs, doc(cfg(feature = "nodes")))]
#[doc(inline)]
pub use manifold_nodes as nodes;
#[cfg(feature = "docker")]
#[cfg_attr(docsrs, doc(cfg(feature = "docker")))]
#[doc(inline)]
pub use manifold_runtime_docker as docker;
#[cfg(feature = "v8")]
#[cfg_attr(docsrs, doc(cfg(feature = "v8")))]
#[doc(inline)]
pub use manifold_runtime_v8 as v8;
#[cfg(feature = "wasm")]
#[cfg_attr(docsrs, doc(cfg(feature = "wasm")))]
#[doc(inline)]
pub use manifold_runtime_wasm as wasm;
#[cfg(feature = "standard-guests")]
#[cfg_attr(docsrs, doc(cfg(feature = "standard-guests")))]
#[doc(inline)]
pub use manifold_standard_guests as standard_guests;
#[cfg(feature = "trace")]
#[cfg_attr(docsrs, doc(cfg(feature = "trace")))]
#[doc(inline)]
pub use manifold_trace as trace;

/// The examples of the project's README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ProjectReadme;

/// The examples of the guide for embedders.
#[cfg(all(
    doctest,
    feature = "directory",
    feature = "durable",
    feature = "functions",
    feature = "git"
))]
#[doc = include_str!("../../docs/embedding.md")]
struct EmbeddingGuide;

/// The examples of the guide to traces.
#[cfg(all(doctest, feature = "trace"))]
#[doc = include_str!("../../docs/traces.md")]
struct TraceGuide;
