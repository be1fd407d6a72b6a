//! The guest as a container program.

fn main() {
    line_count::main();
}
