#![no_std]
//! A fold visitor that counts files by their license: a tree of numbers.
//!
//! The license of a file is what its first `SPDX-License-Identifier` says, or else the first of some
//! common licenses whose text it contains or refers to, within its first 64 KiB. A file without
//! either is not counted.

extern crate alloc;

use alloc::string::String;

use manifold_guest::{Job, ObjectRef, Result, get_range};
use manifold_visitor::{is_binary, tally};

const TAG: &str = "SPDX-License-Identifier:";
const READ_BYTES: u64 = 64 << 10;
const LONGEST: usize = 200;

/// Licenses, and texts that all occur in a file under the license. A license comes before those
/// whose texts it contains as well.
const TEXTS: [(&str, &[&str]); 23] = [
    ("AGPL-3.0", &["gnu affero general public license version 3"]),
    ("LGPL-3.0", &["gnu lesser general public license version 3"]),
    ("LGPL-2.1", &["gnu lesser general public license version 2.1"]),
    ("GPL-3.0", &["gnu general public license version 3"]),
    ("GPL-2.0", &["gnu general public license version 2"]),
    ("AGPL-3.0", &["gnu affero general public license", "either version 3 of the license"]),
    ("LGPL-3.0", &["gnu lesser general public license", "either version 3 of the license"]),
    ("LGPL-2.1", &["gnu lesser general public license", "either version 2.1 of the license"]),
    ("GPL-3.0", &["gnu general public license", "either version 3 of the license"]),
    ("GPL-2.0", &["gnu general public license", "either version 2 of the license"]),
    ("GPL-2.0", &["gnu general public license", "either version 2 or at your option"]),
    ("Apache-2.0", &["apache license version 2.0"]),
    ("MPL-2.0", &["mozilla public license version 2.0"]),
    ("MPL-2.0", &["mozilla public license v. 2.0"]),
    ("CC0-1.0", &["cc0 1.0 universal"]),
    ("Unlicense", &["this is free and unencumbered software released into the public domain"]),
    ("BSL-1.0", &["boost software license version 1.0"]),
    ("ISC", &["permission to use copy modify and or distribute this software for any purpose"]),
    ("ISC", &["permission to use copy modify and distribute this software for any purpose"]),
    ("MIT", &["permission is hereby granted free of charge to any person obtaining a copy"]),
    ("Zlib", &["the origin of this software must not be misrepresented"]),
    ("BSD-3-Clause", &["redistribution and use in source and binary forms", "neither the name"]),
    ("BSD-2-Clause", &["redistribution and use in source and binary forms"]),
];

fn licenses(job: &Job) -> Result<ObjectRef> {
    tally(job, |blob| {
        let content = get_range(&blob.id, 0, READ_BYTES)?;
        if is_binary(&content) {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&content);
        Ok(tag(&text).map(String::from).or_else(|| license(&text).map(String::from)))
    })
}

/// Returns the license expression after the first tag that has one, of up to [`LONGEST`] bytes.
fn tag(text: &str) -> Option<&str> {
    text.split(TAG).skip(1).find_map(|rest| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || " .+-()".contains(c);
        let rest = rest.trim_start_matches([' ', '\t']);
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        // What follows can be the end of a comment.
        let expression = rest[..end].trim_matches([' ', '-', '.']);
        let is_expression = expression.starts_with(|c: char| c == '(' || c.is_ascii_alphanumeric());
        (is_expression && expression.len() <= LONGEST).then_some(expression)
    })
}

/// Returns the license whose text or name is in `text`.
fn license(text: &str) -> Option<&'static str> {
    let words = words(text);
    let found = TEXTS.iter().find(|(_, texts)| texts.iter().all(|text| words.contains(text)));
    found.map(|(license, _)| *license)
}

/// Returns the words of a text in lower case, with one space between each. They consist of ASCII
/// letters, digits and points.
fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'.' {
            words.push(byte.to_ascii_lowercase().into());
        } else if !words.ends_with(' ') {
            words.push(' ');
        }
    }
    words
}

manifold_guest::main!(licenses);
