//! How a request reaches the host.

#[cfg(any(target_arch = "wasm32", test))]
use alloc::vec::Vec;

#[cfg(target_arch = "wasm32")]
mod imports {
    #[link(wasm_import_module = "caos_abi_v1")]
    unsafe extern "C" {
        /// Takes the request at `pointer`, and answers the length of the response.
        pub(super) safe fn call(pointer: *const u8, length: usize) -> usize;
        /// Copies the response to `pointer`.
        pub(super) fn read(pointer: *mut u8);
    }
}

/// Sends one request and receives its response.
#[cfg(target_arch = "wasm32")]
pub(crate) fn exchange(request: &[u8]) -> Vec<u8> {
    let length = imports::call(request.as_ptr(), request.len());
    let mut response = Vec::with_capacity(length);
    // SAFETY: the host writes exactly the `length` bytes that it announced, all of them within the capacity.
    unsafe {
        imports::read(response.as_mut_ptr());
        response.set_len(length);
    }
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
        static SCRIPT: core::cell::RefCell<VecDeque<(&'static str, String)>> = const { core::cell::RefCell::new(VecDeque::new()) };
    }

    pub(crate) fn expect(request: &'static str, response: impl Into<String>) {
        SCRIPT.with_borrow_mut(|script| script.push_back((request, response.into())));
    }

    pub(crate) fn exchange(request: &[u8]) -> Vec<u8> {
        let (expected, response) = SCRIPT.with_borrow_mut(VecDeque::pop_front).expect("no further request");
        assert_eq!(core::str::from_utf8(request), Ok(expected));
        response.into_bytes()
    }
}
