//! Manifold runs pure functions over git objects and never runs the same one twice.
//!
//! ```
//! use manifold::native::NativeRuntime;
//! use manifold::{Dispatcher, Invocation};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let runtime = NativeRuntime::builder("example", "1")
//!         .guest("shout", |guest| async move {
//!             guest.blob(guest.bytes("in").await?.to_ascii_uppercase()).await
//!         })
//!         .build()?;
//!     let dispatcher = Dispatcher::builder().build()?;
//!     let runtime = dispatcher.add_runtime(runtime)?;
//!     let shout = dispatcher.install(runtime, "shout")?;
//!     let answer = dispatcher.run(Invocation::new(shout).arg("in", "hello")).await?;
//!     assert_eq!(answer.text()?, "HELLO");
//!     Ok(())
//! }
//! ```
//!
//! # Core concepts
//!
//! | term | meaning |
//! |---|---|
//! | **object** | A git blob or tree, named by its object id, as git computes it. |
//! | **request** | One application of an image to arguments: a git tree of `image`, `args`, `salt` and `std`. Its id is the memo key. |
//! | **outcome** | The kind and id of the object that a run produced. The memo records the outcome of each request. |
//! | **image** | What a request names as its code: a *runtime node* (the runtime's host image hash and a module), a *curry node* (another image with bound arguments), a name in the request's tree of named images, or a container image. |
//! | **host image** | A git tree that describes a runtime completely: name, version, and every setting that can change a result. Its id, the *host image hash*, selects the runtime, so a new version of a runtime never returns results of an old one. |
//! | **runtime** | What executes guests: wasmtime, V8, containers, closures of this process, or your own [`Runtime`]. |
//! | **guest** | The code that a runtime executes. It reads objects, stores objects and calls other guests through its [`Host`], and can reach nothing else. |
//! | **frame** | One execution of a request, from its start to its outcome. A frame that waits for nested runs is *suspended*. |
//! | **flight** | An execution in progress. All callers that want its request wait for it: each request has at most one flight. |
//! | **permit** | The right to compute. There is one for each core by default. A suspended frame holds none, so a recursion of any depth completes with one permit. |
//! | **root call** | A call that the embedding program makes, with [`Dispatcher::run`]. Runs that guests start are *nested* in it. |
//! | **pin** | A mark that keeps the outcome of a request, and all objects it reaches, from garbage collection. |
//! | **scope** | What a root call and all runs nested in it share: salt, named images, limits, budget and counters. |
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `directory` (default) | [`DirectoryObjects`]: directories as git objects |
//! | `wasm` | [`wasm`]: WebAssembly guests on wasmtime |
//! | `v8` | [`v8`]: TypeScript and JavaScript guests on V8 |
//! | `docker` | [`docker`]: guests in containers |
//! | `durable` | `DurableStore`: objects, memo and pins in a file |
//! | `git` | `GitObjects`: the objects of existing repositories |
//! | `functions` | `Dispatcher::function`: memoized async functions |
//! | `standard-guests` | `standard_guests`: `fold` and its visitors |
//!
//! Without any feature you have the dispatcher, the in-memory store and native guests.
//!
//! # When is a result not memoized?
//!
//! - The run failed. Failures reach every waiting caller and are then forgotten.
//! - The guest caught a failure that its request alone does not decide, such as an exceeded limit, a
//!   cancelled run or a failed store, and succeeded all the same.
//! - The policy is [`Policy::DoNotCache`].
//! - Every caller stopped waiting before the run ended.
//!
//! [`Completion::from_memo`] tells whether a result came from the memo.
//!
//! # How do I bound a run?
//!
//! [`Limits`] bound one frame: memory, computing time, fuel, and the sizes of requests, responses,
//! modules and logs. [`Budget`] bounds a root call with all its nested runs: a deadline, fuel,
//! memory, depth, number of runs and bytes stored. Set both for a dispatcher with
//! [`DispatcherBuilder::limits`] and [`DispatcherBuilder::budget`], and tighter ones for one call
//! with [`Invocation::limits`] and [`Invocation::budget`]. To cancel a call, drop its future. Native
//! guests are trusted: of the limits, only those of the dispatcher apply to them.
//!
//! [`DirectoryObjects`]: https://docs.rs/manifold/latest/manifold/struct.DirectoryObjects.html
#![cfg_attr(docsrs, feature(doc_cfg))]

pub use manifold_dispatcher::*;
pub use manifold_runtime_api::*;

#[cfg(feature = "docker")]
pub use manifold_runtime_docker as docker;
#[cfg(feature = "v8")]
pub use manifold_runtime_v8 as v8;
#[cfg(feature = "wasm")]
pub use manifold_runtime_wasm as wasm;
#[cfg(feature = "standard-guests")]
pub use manifold_standard_guests as standard_guests;

/// The examples of the project's README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ProjectReadme;
