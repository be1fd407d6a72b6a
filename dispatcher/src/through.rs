//! Methods that only pass on what they are asked, for wrappers that change a few of them.

/// The methods of `ObjectSource`, asked of another one.
macro_rules! source_through {
    ($self:ident => $inner:expr) => {
        fn read(&$self, id: ObjectId) -> Result<Option<Object>> {
            $inner.read(id)
        }

        fn kind(&$self, id: ObjectId) -> Result<Option<ObjectKind>> {
            $inner.kind(id)
        }
    };
}

/// The methods of `Store`, asked of another one.
macro_rules! store_through {
    ($self:ident => $inner:expr) => {
        fn write(&$self, object: Object) -> Result<ObjectId> {
            $inner.write(object)
        }

        fn recall(&$self, request: ObjectId) -> Result<Option<Outcome>> {
            $inner.recall(request)
        }

        fn remember(&$self, request: ObjectId, outcome: Outcome) -> Result<()> {
            $inner.remember(request, outcome)
        }

        fn pin(&$self, request: ObjectId, outcome: Outcome) -> Result<()> {
            $inner.pin(request, outcome)
        }

        fn unpin(&$self, request: ObjectId) -> Result<bool> {
            $inner.unpin(request)
        }

        fn pinned(&$self, request: ObjectId) -> Result<Option<Outcome>> {
            $inner.pinned(request)
        }

        fn pins(&$self) -> Result<Vec<Pin>> {
            $inner.pins()
        }

        fn keeps_everything(&$self) -> bool {
            $inner.keeps_everything()
        }

        fn flush(&$self) -> Result<()> {
            $inner.flush()
        }
    };
}

/// The methods of `Runtime` that describe it, asked of another one.
macro_rules! description_through {
    ($self:ident => $inner:expr) => {
        fn host_image(&$self) -> &HostImage {
            $inner.host_image()
        }

        fn capabilities(&$self) -> Capabilities {
            $inner.capabilities()
        }
    };
}

pub(crate) use {description_through, source_through, store_through};
