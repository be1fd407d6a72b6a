//! From an image reference to a runtime, a module, and the arguments that are bound on the way.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    Code, Error, HostRef, ImageProblem, ImageRef, MAX_IMAGE_DEPTH, Module, NodeShape, ObjectId,
    ObjectKind, Reason, Result, Runtime, Tree,
};
use quick_cache::sync::Cache;

use crate::objects::Objects;
use crate::registry::Registry;
use crate::scope::Allowance;

/// An image reference that has been followed to its end.
pub(crate) struct ResolvedImage {
    /// The reference that stands in the request.
    pub(crate) text: Arc<str>,
    /// The id of the blob that holds `text`.
    pub(crate) text_blob: ObjectId,
    pub(crate) code: Code,
    pub(crate) runtime: Arc<dyn Runtime>,
    /// Whether the runtime was asked to prepare the module, without a bound on fuel and with one, so that a run has nothing to do
    /// but to run.
    pub(crate) prepared: [AtomicBool; 2],
    /// Trees of bound arguments. An earlier one wins over a later one.
    bound: Vec<ObjectId>,
}

/// Resolves references, and remembers how: nodes never change.
pub(crate) struct Resolver {
    resolved: Cache<(ImageRef, Option<ObjectId>), Arc<ResolvedImage>>,
}

/// How many resolved references are remembered.
const REMEMBERED: usize = 4096;

impl Resolver {
    pub(crate) fn new() -> Self {
        Self { resolved: Cache::new(REMEMBERED) }
    }

    /// Follows `reference`, whose names are looked up in `std`.
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
    /// Whether the module is ready for a call with this allowance.
    pub(crate) fn is_prepared(&self, allowance: &Allowance) -> bool {
        self.prepared[usize::from(allowance.fuel_bound().is_some())].load(Ordering::Relaxed)
    }

    /// The arguments of the run: the call's own over the bound ones.
    pub(crate) fn arguments(&self, own: ObjectId, objects: &Objects) -> Result<ObjectId> {
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
        objects.write_tree(&tree, tree.to_object())
    }
}

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

struct Walk<'a> {
    objects: &'a Objects,
    registry: &'a Registry,
    std: Option<ObjectId>,
}

impl Walk<'_> {
    fn follow(&self, first: ImageRef) -> Result<ResolvedImage, Stop> {
        let mut met = HashSet::new();
        let mut bound = Vec::new();
        let mut reference = first;
        loop {
            if !met.insert(reference.clone()) {
                return Err(ImageProblem::ReachesItself { through: reference.to_string() }.into());
            }
            if met.len() > MAX_IMAGE_DEPTH {
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
                        return Ok(end(id.to_string(), code, runtime, bound));
                    }
                },
                ImageRef::Docker(container) => {
                    let runtime = Arc::clone(self.registry.for_container(container)?);
                    return Ok(end(
                        reference.to_string(),
                        Code::Container(container.clone()),
                        runtime,
                        bound,
                    ));
                }
            };
        }
    }

    fn runtime(
        &self,
        node: ObjectId,
        marker: ObjectId,
        module: Module,
    ) -> Result<(Arc<dyn Runtime>, Code), Stop> {
        let marker = self.text(marker)?;
        let host = HostRef::parse(&marker).map_err(|problem| {
            not_an_image(
                node,
                &format!("its marker {:?}: {problem}", marker.chars().take(80).collect::<String>()),
            )
        })?;
        let id = match host {
            HostRef::HostImage(id) => id,
            HostRef::Container(host) => {
                let runtime = self.registry.for_container(&host)?;
                return Ok((Arc::clone(runtime), Code::Hosted { host, module }));
            }
        };
        let runtime = self.registry.find(id)?;
        if !runtime.capabilities().accepts(module.kind) {
            let name = runtime.host_image().name();
            return Err(not_an_image(
                node,
                &format!("runtime {name} takes no module that is a {}", module.kind),
            ));
        }
        Ok((Arc::clone(runtime), Code::Module(module)))
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

fn end(text: String, code: Code, runtime: Arc<dyn Runtime>, bound: Vec<ObjectId>) -> ResolvedImage {
    let text_blob = ObjectId::of(ObjectKind::Blob, text.as_bytes());
    ResolvedImage {
        text: text.into(),
        text_blob,
        code,
        runtime,
        prepared: Default::default(),
        bound,
    }
}

fn parse(blob: ObjectId, text: &str) -> Result<ImageRef, Stop> {
    ImageRef::parse(text).map_err(|problem| not_an_image(blob, &problem.to_string()))
}

fn not_an_image(id: ObjectId, problem: &str) -> Stop {
    ImageProblem::NotAnImage { id, problem: problem.to_owned() }.into()
}
