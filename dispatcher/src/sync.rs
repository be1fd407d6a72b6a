//! The mutex and the atomics of the claims and permits. In this crate's unit tests they are those of
//! shuttle, so that shuttle controls the interleaving.

#[cfg(not(test))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(test))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize};

#[cfg(test)]
pub(crate) use shuttle::sync::MutexGuard;
#[cfg(test)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicUsize};
#[cfg(test)]
pub(crate) use shuttled::Mutex;

#[cfg(test)]
mod shuttled {
    use shuttle::sync::MutexGuard;

    #[derive(Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}
