//! The guest as a container program.

fn main() {
    dirs_only::main();
}
