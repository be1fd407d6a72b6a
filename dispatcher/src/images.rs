//! Images as values: arguments bound to them, pins that keep them, and names.

use manifold_runtime_api::{CurryNode, Error, ObjectId, ObjectKind, ObjectRef, Result};

use crate::dispatcher::Dispatcher;
use crate::store::named_images_key;

impl Dispatcher {
    /// Binds the arguments in the tree `args` to `image`, and returns the id of the image with its
    /// arguments bound. Names are looked up in the tree `std`.
    ///
    /// If `image` has bound arguments already, the new node binds all of them to the image below, so
    /// that the id does not depend on the number of steps. Of two arguments with the same name, the
    /// one in `args` is bound.
    ///
    /// # Errors
    /// - [`Reason::BadImage`](crate::api::Reason::BadImage) if `image` cannot be resolved.
    /// - [`Reason::MissingObject`](crate::api::Reason::MissingObject) or
    ///   [`Reason::WrongKind`](crate::api::Reason::WrongKind) if `args` is not an available tree.
    /// - [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store or a source fails.
    ///
    /// # Example
    /// ```
    /// # use manifold_dispatcher::native::NativeRuntime;
    /// # use manifold_dispatcher::api::{EntryMode, TreeEntry};
    /// # use manifold_dispatcher::{Dispatcher, Invocation};
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let guests = NativeRuntime::builder("example", "1")
    ///     .guest("join", |guest| async move {
    ///         let joined = guest.text("a").await? + &guest.text("b").await?;
    ///         guest.blob(joined).await
    ///     })
    ///     .build()?;
    /// let dispatcher = Dispatcher::builder().build()?;
    /// let host = dispatcher.add_runtime(guests)?;
    /// let join = dispatcher.install(host, "join")?;
    /// let hello = dispatcher.put_blob("hello ")?;
    /// let args = dispatcher.put_tree([TreeEntry::new("a", EntryMode::Blob, hello)])?;
    /// let greet = dispatcher.curry(&join.to_string(), None, args)?;
    /// assert_eq!(dispatcher.run(Invocation::new(greet).arg("b", "you")).await?.text()?, "hello you");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn curry(&self, image: &str, std: Option<ObjectId>, args: ObjectId) -> Result<ObjectId> {
        let (core, objects) = (&self.core, &self.core.objects);
        objects.check(args, ObjectKind::Tree)?;
        let image = core.resolver.resolve(image, std, objects, &core.registry)?;
        let args = image.arguments(args, objects, |_| Ok(()))?;
        self.put_node(CurryNode { base: image.text.to_string(), args }.encode()?)
    }

    /// Pins an object under its own id: it, everything that it reaches, and the images that it
    /// refers to are copied into the store, and no collection removes them before
    /// [`Dispatcher::unpin`].
    ///
    /// # Errors
    /// - [`Reason::MissingObject`](crate::api::Reason::MissingObject) if an object is not available.
    /// - [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store or a source fails.
    pub fn pin(&self, id: ObjectId) -> Result<()> {
        self.pin_under(id, id)
    }

    /// Returns the id of the tree of named images that was last set, or `None` if there is none.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the pins cannot be read.
    pub fn named_images(&self) -> Result<Option<ObjectId>> {
        Ok(self.core.objects.store.pinned(named_images_key())?.map(|tree| tree.id))
    }

    /// Sets the store's tree of named images, and keeps it and the images from collection. Each entry
    /// of the tree is an image node, or a blob with an image reference, by the name of the image.
    ///
    /// The dispatcher does not use this tree by itself. It is passed to a call as the call's
    /// [`std`](crate::Invocation::std). If several processes change it at once, the last one wins.
    ///
    /// # Errors
    /// - [`Reason::MissingObject`](crate::api::Reason::MissingObject) if an object is not available.
    /// - [`Reason::WrongKind`](crate::api::Reason::WrongKind) if `tree` is a blob.
    /// - [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store or a source fails.
    pub fn set_named_images(&self, tree: ObjectId) -> Result<()> {
        self.core.objects.check(tree, ObjectKind::Tree)?;
        self.pin_under(named_images_key(), tree)
    }

    fn pin_under(&self, key: ObjectId, id: ObjectId) -> Result<()> {
        let objects = &self.core.objects;
        let kind = objects.kind(id)?.ok_or_else(|| Error::missing(id))?;
        match objects.adopt_with_images(id)? {
            Some(missing) => Err(Error::missing(missing)),
            None => objects.store.pin(key, ObjectRef { kind, id }),
        }
    }
}
