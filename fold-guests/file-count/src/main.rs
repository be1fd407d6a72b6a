//! The guest as a program for containers.

fn main() {
    file_count::main();
}
