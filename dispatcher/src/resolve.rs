//! Resolution of an image reference: follows it to a runtime, its code, and the arguments that
//! curry nodes bind on the way.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    Code, Error, HostRef, ImageProblem, ImageRef, MAX_IMAGE_DEPTH, NodeShape, ObjectId, ObjectKind,
    ObjectRef, Reason, Result, Runtime, Tree,
};
use quick_cache::sync::Cache;

use crate::objects::Objects;
use crate::registry::Registry;
use crate::scope::Allowance;

/// An image reference that was resolved completely.
pub(crate) struct ResolvedImage {
    /// The image reference in the request.
    pub(crate) text: Arc<str>,
    /// The id of the blob that holds `text`.
    pub(crate) text_blob: ObjectId,
    pub(crate) code: Code,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) prepared: Prepared,
    /// The ids of the trees of bound arguments. An argument in an earlier tree replaces one in a
    /// later tree.
    bound: Vec<ObjectId>,
}

/// Whether the runtime was asked to prepare a module, so that nothing is left to prepare when it is
/// run. Code that measures fuel is prepared separately.
#[derive(Default)]
pub(crate) struct Prepared {
    with_fuel: AtomicBool,
    without_fuel: AtomicBool,
}

impl Prepared {
    fn flag(&self, fuel: bool) -> &AtomicBool {
        if fuel { &self.with_fuel } else { &self.without_fuel }
    }

    fn get(&self, fuel: bool) -> bool {
        self.flag(fuel).load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, fuel: bool) {
        self.flag(fuel).store(true, Ordering::Relaxed);
    }
}

/// Resolves image references. Resolved references are cached, because nodes never change.
pub(crate) struct Resolver {
    resolved: Cache<(ImageRef, Option<ObjectId>), Arc<ResolvedImage>>,
}

/// The number of resolved references in the cache.
const RESOLVED_CAPACITY: usize = 4096;

impl Resolver {
    pub(crate) fn new() -> Self {
        Self { resolved: Cache::new(RESOLVED_CAPACITY) }
    }

    /// Resolves `reference`. Names are looked up in the tree `std`.
    pub(crate) fn resolve(
        &self,
        reference: &str,
        std: Option<ObjectId>,
        objects: &Objects,
        registry: &Registry,
    ) -> Result<Arc<ResolvedImage>> {
        let bad = |problem| {
            Error::new(Reason::BadImage {
                reference: reference.chars().take(200).collect(),
                problem,
            })
        };
        let key = (ImageRef::parse(reference).map_err(bad)?, std);
        if let Some(resolved) = self.resolved.get(&key) {
            return Ok(resolved);
        }
        let resolved =
            Arc::new(Walk { objects, registry, std }.follow(key.0.clone()).map_err(|stop| {
                match stop {
                    Stop::Problem(problem) => bad(problem),
                    Stop::Error(error) => error,
                }
            })?);
        self.resolved.insert(key, Arc::clone(&resolved));
        Ok(resolved)
    }
}

impl ResolvedImage {
    /// Returns whether the module is prepared for a call with `allowance`.
    pub(crate) fn is_prepared(&self, allowance: &Allowance) -> bool {
        self.prepared.get(allowance.fuel_bound().is_some())
    }

    /// Returns the id of the arguments of a run. Calls `charge` with the size of the tree before it is
    /// stored, unless it is that of the call. The call's own arguments replace bound ones of the
    /// same name.
    pub(crate) fn arguments(
        &self,
        own: ObjectId,
        objects: &Objects,
        charge: impl FnOnce(usize) -> Result<()>,
    ) -> Result<ObjectId> {
        if self.bound.is_empty() {
            return Ok(own);
        }
        let mut entries = objects.tree(own)?.into_entries();
        let mut names: HashSet<_> = entries.iter().map(|entry| entry.name.clone()).collect();
        for bound in &self.bound {
            let bound = objects.tree(*bound)?.into_entries();
            entries.extend(bound.into_iter().filter(|entry| names.insert(entry.name.clone())));
        }
        let tree = Tree::new(entries)?;
        let object = tree.to_object();
        charge(object.content.len())?;
        objects.write_tree(&tree, object)
    }
}

/// Why a reference cannot be resolved.
enum Stop {
    Problem(ImageProblem),
    Error(Error),
}

impl From<ImageProblem> for Stop {
    fn from(problem: ImageProblem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The resolution of one reference.
struct Walk<'a> {
    objects: &'a Objects,
    registry: &'a Registry,
    std: Option<ObjectId>,
}

impl Walk<'_> {
    fn follow(&self, first: ImageRef) -> Result<ResolvedImage, Stop> {
        let mut seen = HashSet::new();
        let mut bound = Vec::new();
        let mut reference = first;
        loop {
            if !seen.insert(reference.clone()) {
                return Err(ImageProblem::ReachesItself { through: reference.to_string() }.into());
            }
            if seen.len() > MAX_IMAGE_DEPTH {
                return Err(ImageProblem::TooDeep.into());
            }
            reference = match &reference {
                ImageRef::Std(name) => self.named(name)?,
                ImageRef::Node(id) => match self.shape(*id)? {
                    NodeShape::Curry { base, args } => {
                        bound.push(args);
                        parse(base, &self.text(base)?)?
                    }
                    NodeShape::Runtime { marker, module } => {
                        let (runtime, code) = self.runtime(*id, marker, module)?;
                        return Ok(resolved(id.to_string(), code, runtime, bound));
                    }
                },
                ImageRef::Docker(container) => {
                    let runtime = self.registry.for_container(container)?;
                    return Ok(resolved(
                        reference.to_string(),
                        Code::Container(container.clone()),
                        runtime,
                        bound,
                    ));
                }
                // A form that a later version of the API knows.
                _ => return Err(ImageProblem::Syntax.into()),
            };
        }
    }

    fn runtime(
        &self,
        node: ObjectId,
        marker: ObjectId,
        module: ObjectRef,
    ) -> Result<(Arc<dyn Runtime>, Code), Stop> {
        let marker = self.text(marker)?;
        let host = HostRef::parse(&marker).map_err(|problem| {
            not_an_image(
                node,
                &format!(
                    "its marker {:?} names no host: {problem}",
                    marker.chars().take(80).collect::<String>()
                ),
            )
        })?;
        let id = match host {
            HostRef::HostImage(id) => id,
            HostRef::Container(host) => {
                let runtime = self.registry.for_container(&host)?;
                return Ok((runtime, Code::Hosted { host, module }));
            }
            _ => return Err(ImageProblem::Syntax.into()),
        };
        let runtime = self.registry.find(id)?;
        if !runtime.capabilities().accepts(module.kind) {
            let name = runtime.host_image().name();
            return Err(not_an_image(
                node,
                &format!("runtime {name} does not accept a {} as a module", module.kind),
            ));
        }
        Ok((runtime, Code::Module(module)))
    }

    fn shape(&self, id: ObjectId) -> Result<NodeShape, Stop> {
        if self.objects.kind(id)? == Some(ObjectKind::Blob) {
            return Err(not_an_image(id, "it is a blob"));
        }
        NodeShape::of(&self.objects.tree(id)?).map_err(|problem| not_an_image(id, &problem))
    }

    fn named(&self, name: &str) -> Result<ImageRef, Stop> {
        let std = self.objects.tree(self.std.ok_or(ImageProblem::NoStd)?)?;
        let Some(entry) = std.get(name) else {
            let known = std.entries().iter().map(|entry| entry.name.to_string()).collect();
            return Err(ImageProblem::UnknownName { known }.into());
        };
        match entry.mode.object_kind() {
            Some(ObjectKind::Tree) => Ok(ImageRef::Node(entry.id)),
            Some(ObjectKind::Blob) => parse(entry.id, &self.text(entry.id)?),
            None => Err(not_an_image(entry.id, "it is a commit")),
        }
    }

    fn text(&self, blob: ObjectId) -> Result<String, Stop> {
        let text = self.objects.blob(blob)?;
        text.to_str().map(str::to_owned).map_err(|_| not_an_image(blob, "it is not UTF-8 text"))
    }
}

fn resolved(
    text: String,
    code: Code,
    runtime: Arc<dyn Runtime>,
    bound: Vec<ObjectId>,
) -> ResolvedImage {
    let text_blob = ObjectId::of(ObjectKind::Blob, text.as_bytes());
    ResolvedImage {
        text: text.into(),
        text_blob,
        code,
        runtime,
        prepared: Prepared::default(),
        bound,
    }
}

fn parse(blob: ObjectId, text: &str) -> Result<ImageRef, Stop> {
    ImageRef::parse(text).map_err(|problem| not_an_image(blob, &problem.to_string()))
}

fn not_an_image(id: ObjectId, problem: &str) -> Stop {
    ImageProblem::NotAnImage { id, problem: problem.to_owned() }.into()
}
