//! How a request reaches the host.

#[cfg(any(target_arch = "wasm32", test))]
use alloc::vec::Vec;

#[cfg(target_arch = "wasm32")]
mod imports {
    #[link(wasm_import_module = "caos_abi_v2")]
    unsafe extern "C" {
        /// Takes the request at `pointer`, puts the response into `room` if it has the capacity, and answers the response's length.
        pub(super) fn call(
            pointer: *const u8,
            length: usize,
            room: *mut u8,
            capacity: usize,
        ) -> usize;
        /// Copies the response to `pointer`.
        pub(super) fn read(pointer: *mut u8);
    }
}

/// Sends one request and receives its response.
#[cfg(target_arch = "wasm32")]
pub(crate) fn exchange(request: &[u8]) -> Vec<u8> {
    /// More than most responses take.
    const ROOM: usize = 512;
    let mut response = Vec::with_capacity(ROOM);
    // SAFETY: the host reads the request, and writes no more than the capacity that it is told.
    let length =
        unsafe { imports::call(request.as_ptr(), request.len(), response.as_mut_ptr(), ROOM) };
    if length > ROOM {
        response.reserve_exact(length);
        // SAFETY: the host writes exactly the `length` bytes that it announced, for which there is room now.
        unsafe { imports::read(response.as_mut_ptr()) };
    }
    // SAFETY: the host has written as many, in either way.
    unsafe { response.set_len(length) };
    response
}

#[cfg(not(any(target_arch = "wasm32", test)))]
pub(crate) use crate::process::exchange;
#[cfg(test)]
pub(crate) use scripted::exchange;

/// A host for the SDK's own tests, which expects requests and knows the responses.
#[cfg(test)]
pub(crate) mod scripted {
    use super::Vec;
    use alloc::collections::VecDeque;
    use alloc::string::String;

    std::thread_local! {
        static SCRIPT: core::cell::RefCell<VecDeque<(Vec<u8>, Vec<u8>)>> = const { core::cell::RefCell::new(VecDeque::new()) };
    }

    pub(crate) fn expect(request: impl AsRef<[u8]>, response: impl AsRef<[u8]>) {
        let exchange = (request.as_ref().to_vec(), response.as_ref().to_vec());
        SCRIPT.with_borrow_mut(|script| script.push_back(exchange));
    }

    pub(crate) fn exchange(request: &[u8]) -> Vec<u8> {
        let (expected, response) =
            SCRIPT.with_borrow_mut(VecDeque::pop_front).expect("no further request");
        assert_eq!(request, expected, "{:?}", String::from_utf8_lossy(request));
        response
    }
}
