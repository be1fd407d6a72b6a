//! The guest as a container program.

fn main() {
    file_count::main();
}
