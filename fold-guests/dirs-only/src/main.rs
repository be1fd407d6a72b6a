//! The guest as a program for containers.

fn main() {
    dirs_only::main();
}
