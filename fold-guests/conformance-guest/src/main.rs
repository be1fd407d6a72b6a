//! The programs as a container program. Its first argument is the name of the program.

fn main() {
    manifold_guest::run_process(conformance_guest::run);
}
