//! The languages, and what their comments and strings look like.

/// A language.
pub(crate) struct Language {
    pub(crate) name: &'static str,
    /// The ends of file names after a point, in lower case. `=` stands before a whole name.
    files: &'static [&'static str],
    pub(crate) syntax: &'static Syntax,
}

/// What the comments and strings of a language look like.
pub(crate) struct Syntax {
    /// What starts a comment that ends with the line.
    pub(crate) line: &'static [&'static str],
    /// The start and the end of a comment that can have several lines.
    pub(crate) block: &'static [(&'static str, &'static str)],
    /// Whether such comments contain each other.
    pub(crate) nested: bool,
    /// The start and the end of a string, and what else holds for it.
    pub(crate) strings: &'static [(&'static str, &'static str, Text)],
    /// Code that only looks as if it contained the start of a string.
    pub(crate) code: &'static [&'static str],
}

/// What holds for a string.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    /// It ends with the line at the latest. A backslash escapes.
    Line,
    /// It can have several lines. A backslash escapes.
    Lines,
    /// It can have several lines. Nothing escapes.
    Raw,
}

use Text::{Line, Lines, Raw};

const PLAIN: Syntax = Syntax { line: &[], block: &[], nested: false, strings: &[], code: &[] };
const C: Syntax = Syntax {
    line: &["//"],
    block: &[("/*", "*/")],
    strings: &[("\"", "\"", Line), ("'", "'", Line)],
    ..PLAIN
};
const RUST: Syntax = Syntax {
    nested: true,
    strings: &[
        ("r##\"", "\"##", Raw),
        ("r#\"", "\"#", Raw),
        ("r\"", "\"", Raw),
        ("\"", "\"", Lines),
    ],
    code: &["'\"'", "'\\\"'"],
    ..C
};
const NESTED_C: Syntax = Syntax {
    nested: true,
    strings: &[("\"\"\"", "\"\"\"", Lines), ("\"", "\"", Line), ("'", "'", Line)],
    ..C
};
const JAVASCRIPT: Syntax =
    Syntax { strings: &[("\"", "\"", Line), ("'", "'", Line), ("`", "`", Lines)], ..C };
const GO: Syntax =
    Syntax { strings: &[("\"", "\"", Line), ("'", "'", Line), ("`", "`", Raw)], ..C };
const CSS: Syntax = Syntax { line: &[], ..C };
const PHP: Syntax = Syntax { line: &["//", "#"], ..C };
const HASH: Syntax =
    Syntax { line: &["#"], strings: &[("\"", "\"", Lines), ("'", "'", Raw)], ..PLAIN };
const YAML: Syntax = Syntax { strings: &[("\"", "\"", Line), ("'", "'", Line)], ..HASH };
const TOML: Syntax = Syntax {
    strings: &[
        ("\"\"\"", "\"\"\"", Lines),
        ("'''", "'''", Raw),
        ("\"", "\"", Line),
        ("'", "'", Line),
    ],
    ..HASH
};
const PYTHON: Syntax = Syntax {
    strings: &[
        ("\"\"\"", "\"\"\"", Lines),
        ("'''", "'''", Lines),
        ("\"", "\"", Line),
        ("'", "'", Line),
    ],
    ..HASH
};
const QUOTES: &[(&str, &str, Text)] = &[("\"", "\"", Lines), ("'", "'", Lines)];
const RUBY: Syntax = Syntax { block: &[("=begin", "=end")], strings: QUOTES, ..HASH };
const PERL: Syntax =
    Syntax { block: &[("=pod", "=cut"), ("=head1", "=cut")], strings: QUOTES, ..HASH };
const MAKE: Syntax = Syntax { strings: &[], ..HASH };
const SQL: Syntax = Syntax { line: &["--"], strings: &[("'", "'", Raw)], ..C };
const LUA: Syntax = Syntax {
    line: &["--"],
    block: &[("--[[", "]]")],
    strings: &[("[[", "]]", Raw), ("\"", "\"", Line), ("'", "'", Line)],
    ..PLAIN
};
const XML: Syntax = Syntax { block: &[("<!--", "-->")], ..PLAIN };
/// All lines are comments.
pub(crate) const PROSE: Syntax = Syntax { line: &[""], ..PLAIN };

const fn language(
    name: &'static str,
    files: &'static [&'static str],
    syntax: &'static Syntax,
) -> Language {
    Language { name, files, syntax }
}

static LANGUAGES: [Language; 35] = [
    language("C", &["c"], &C),
    language("C Header", &["h"], &C),
    language("C#", &["cs"], &C),
    language("C++", &["cc", "cpp", "cxx"], &C),
    language("C++ Header", &["hh", "hpp", "hxx"], &C),
    language("CSS", &["css"], &CSS),
    language("Dockerfile", &["=dockerfile", "dockerfile"], &YAML),
    language("Go", &["go"], &GO),
    language("HTML", &["html", "htm"], &XML),
    language("JSON", &["json"], &PLAIN),
    language("JSX", &["jsx"], &JAVASCRIPT),
    language("Java", &["java"], &C),
    language("JavaScript", &["js", "mjs", "cjs"], &JAVASCRIPT),
    language("Kotlin", &["kt", "kts"], &NESTED_C),
    language("Lua", &["lua"], &LUA),
    language("Makefile", &["=makefile", "mk"], &MAKE),
    language("Markdown", &["md", "markdown"], &PROSE),
    language("PHP", &["php"], &PHP),
    language("Perl", &["pl", "pm"], &PERL),
    language("Plain Text", &["txt"], &PROSE),
    language("Python", &["py", "pyi"], &PYTHON),
    language("Ruby", &["rb"], &RUBY),
    language("Rust", &["rs"], &RUST),
    language("SQL", &["sql"], &SQL),
    language("SVG", &["svg"], &XML),
    language("Sass", &["scss"], &C),
    language("Scala", &["scala"], &NESTED_C),
    language("Shell", &["sh", "bash"], &HASH),
    language("Swift", &["swift"], &NESTED_C),
    language("TOML", &["toml"], &TOML),
    language("TSX", &["tsx"], &JAVASCRIPT),
    language("TypeScript", &["ts", "mts", "cts"], &JAVASCRIPT),
    language("XML", &["xml"], &XML),
    language("YAML", &["yml", "yaml"], &YAML),
    language("Zig", &["zig"], &ZIG),
];
const ZIG: Syntax = Syntax { block: &[], ..C };

impl Language {
    /// Returns the language called `name`.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        LANGUAGES.iter().find(|language| language.name == name)
    }

    /// Returns the language of the files called `name`.
    pub(crate) fn of(name: &[u8]) -> Option<&'static Self> {
        let (mark, end) = match name.iter().rposition(|byte| *byte == b'.') {
            Some(point) => ("", &name[point + 1..]),
            None => ("=", name),
        };
        let is_end = |file: &&str| {
            file.strip_prefix(mark).is_some_and(|file| file.as_bytes().eq_ignore_ascii_case(end))
        };
        LANGUAGES.iter().find(|language| language.files.iter().any(&is_end))
    }
}
