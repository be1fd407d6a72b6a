//! Sends requests to the host and receives its responses.

#[cfg(any(target_arch = "wasm32", test))]
use alloc::vec::Vec;

#[cfg(target_arch = "wasm32")]
mod imports {
    #[link(wasm_import_module = "caos_abi_v2")]
    unsafe extern "C" {
        /// Handles the request at `pointer` and returns the length of the response in bytes.
        ///
        /// The response is written to `room` if it fits into `capacity` bytes.
        pub(super) fn call(
            pointer: *const u8,
            length: usize,
            room: *mut u8,
            capacity: usize,
        ) -> usize;
        /// Copies the response of the last call to `pointer`.
        pub(super) fn read(pointer: *mut u8);
    }
}

/// Sends one request and returns the response.
#[cfg(target_arch = "wasm32")]
pub(crate) fn exchange(request: &[u8]) -> Vec<u8> {
    /// The initial capacity in bytes. Most responses are shorter.
    const INITIAL_BYTES: usize = 512;
    let mut response = Vec::with_capacity(INITIAL_BYTES);
    // SAFETY: the host reads the request, and writes at most the given capacity.
    let length = unsafe {
        imports::call(request.as_ptr(), request.len(), response.as_mut_ptr(), INITIAL_BYTES)
    };
    if length > INITIAL_BYTES {
        response.reserve_exact(length);
        // SAFETY: the host writes exactly `length` bytes, and the capacity is at least that.
        unsafe { imports::read(response.as_mut_ptr()) };
    }
    // SAFETY: either call has initialized the first `length` bytes.
    unsafe { response.set_len(length) };
    response
}

#[cfg(not(any(target_arch = "wasm32", test)))]
pub(crate) use crate::process::exchange;
#[cfg(test)]
pub(crate) use scripted::exchange;

/// A scripted host for the SDK's unit tests: a queue of expected requests and their responses.
#[cfg(test)]
pub(crate) mod scripted {
    use super::Vec;
    use alloc::collections::VecDeque;
    use alloc::string::String;

    std::thread_local! {
        static SCRIPT: core::cell::RefCell<VecDeque<(Vec<u8>, Vec<u8>)>> =
            const { core::cell::RefCell::new(VecDeque::new()) };
    }

    /// Appends a request to expect and the response to it.
    pub(crate) fn expect(request: impl AsRef<[u8]>, response: impl AsRef<[u8]>) {
        let exchange = (request.as_ref().to_vec(), response.as_ref().to_vec());
        SCRIPT.with_borrow_mut(|script| script.push_back(exchange));
    }

    pub(crate) fn exchange(request: &[u8]) -> Vec<u8> {
        let (expected, response) =
            SCRIPT.with_borrow_mut(VecDeque::pop_front).expect("a request is scripted");
        assert_eq!(request, expected, "{:?}", String::from_utf8_lossy(request));
        response
    }
}
