//! Makes the memory of the guest one page: stack, data and a heap of almost 32 KiB. After each job, a
//! runtime overwrites all of it. What this guest reads fits, as a rule; otherwise, the memory grows.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|architecture| architecture == "wasm32") {
        println!("cargo::rustc-link-arg=-zstack-size=32768");
    }
}
