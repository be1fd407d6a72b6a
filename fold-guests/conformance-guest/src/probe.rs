//! What a guest can find out that is not in its job.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::{env, fs};

/// Returns everything as text.
pub(crate) fn probe() -> String {
    let mut found = String::new();
    let mut add = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(found, "{name}: {value}");
    };
    add("variables", format!("{:?}", env::vars_os().collect::<Vec<_>>()));
    add("arguments", format!("{:?}", env::args_os().collect::<Vec<_>>()));
    add("directory", format!("{:?}", env::current_dir()));
    for file in ["/etc/hostname", "/proc/sys/kernel/hostname", "/proc/self/cgroup"] {
        add(file, format!("{:?}", fs::read_to_string(file)));
    }
    for directory in ["/", "/etc", "/tmp"] {
        // Sorted, because a container engine mounts its own files in any order.
        let names = fs::read_dir(directory).map(|entries| {
            entries.flatten().map(|entry| entry.file_name()).collect::<BTreeSet<_>>()
        });
        add(directory, format!("{names:?}"));
    }
    // Containers have clocks, random numbers and addresses that differ between runs.
    #[cfg(target_arch = "wasm32")]
    add_what_varies(&mut add);
    found
}

#[cfg(target_arch = "wasm32")]
fn add_what_varies(add: &mut dyn FnMut(&str, String)) {
    use std::collections::HashSet;
    use std::time::{Instant, SystemTime};
    let start = Instant::now();
    add("time", format!("{:?}", SystemTime::now()));
    add("elapsed", format!("{:?}", start.elapsed()));
    let words = ["zebra", "apple", "mango", "kiwi", "fig", "plum", "pear"];
    add("order", format!("{:?}", words.iter().collect::<HashSet<_>>()));
    let (boxed, local) = (Box::new(1_u8), 1_u8);
    add("addresses", format!("{boxed:p} {:p} {:p}", &raw const local, probe as fn() -> String));
}
