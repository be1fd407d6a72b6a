/** The languages, and what their comments and strings look like. @module */

/** What the comments and strings of a language look like. */
export interface Syntax {
  /** What starts a comment that ends with the line. */
  line: string[];
  /** The start and the end of a comment that can have several lines. */
  block: [string, string][];
  /** Whether such comments contain each other. */
  nested: boolean;
  /** The start and the end of a string, and what else holds for it. */
  strings: [string, string, Text][];
  /** Code that only looks as if it contained the start of a string. */
  code: string[];
}

/**
 * What holds for a string.
 *
 * - `line`: it ends with the line at the latest, and a backslash escapes.
 * - `lines`: it can have several lines, and a backslash escapes.
 * - `raw`: it can have several lines, and nothing escapes.
 */
export type Text = "line" | "lines" | "raw";

const PLAIN: Syntax = { line: [], block: [], nested: false, strings: [], code: [] };
const C: Syntax = {
  ...PLAIN,
  line: ["//"],
  block: [["/*", "*/"]],
  strings: [['"', '"', "line"], ["'", "'", "line"]],
};
const RUST: Syntax = {
  ...C,
  nested: true,
  strings: [['r##"', '"##', "raw"], ['r#"', '"#', "raw"], ['r"', '"', "raw"], ['"', '"', "lines"]],
  code: ["'\"'", "'\\\"'"],
};
const NESTED_C: Syntax = {
  ...C,
  nested: true,
  strings: [['"""', '"""', "lines"], ['"', '"', "line"], ["'", "'", "line"]],
};
const JAVASCRIPT: Syntax = {
  ...C,
  strings: [['"', '"', "line"], ["'", "'", "line"], ["`", "`", "lines"]],
};
const GO: Syntax = {
  ...C,
  strings: [['"', '"', "line"], ["'", "'", "line"], ["`", "`", "raw"]],
};
const CSS: Syntax = { ...C, line: [] };
const PHP: Syntax = { ...C, line: ["//", "#"] };
const ZIG: Syntax = { ...C, block: [] };
const HASH: Syntax = {
  ...PLAIN,
  line: ["#"],
  strings: [['"', '"', "lines"], ["'", "'", "raw"]],
};
const YAML: Syntax = { ...HASH, strings: [['"', '"', "line"], ["'", "'", "line"]] };
const TOML: Syntax = {
  ...HASH,
  strings: [
    ['"""', '"""', "lines"],
    ["'''", "'''", "raw"],
    ['"', '"', "line"],
    ["'", "'", "line"],
  ],
};
const PYTHON: Syntax = {
  ...HASH,
  strings: [
    ['"""', '"""', "lines"],
    ["'''", "'''", "lines"],
    ['"', '"', "line"],
    ["'", "'", "line"],
  ],
};
const QUOTES: [string, string, Text][] = [['"', '"', "lines"], ["'", "'", "lines"]];
const RUBY: Syntax = { ...HASH, block: [["=begin", "=end"]], strings: QUOTES };
const PERL: Syntax = {
  ...HASH,
  block: [["=pod", "=cut"], ["=head1", "=cut"]],
  strings: QUOTES,
};
const MAKE: Syntax = { ...HASH, strings: [] };
const SQL: Syntax = { ...C, line: ["--"], strings: [["'", "'", "raw"]] };
const LUA: Syntax = {
  ...PLAIN,
  line: ["--"],
  block: [["--[[", "]]"]],
  strings: [["[[", "]]", "raw"], ['"', '"', "line"], ["'", "'", "line"]],
};
const XML: Syntax = { ...PLAIN, block: [["<!--", "-->"]] };
/** All lines are comments. */
const PROSE: Syntax = { ...PLAIN, line: [""] };

/**
 * For each language its name, the ends of file names after a point, and its syntax. `=` stands before
 * a whole name.
 */
const LANGUAGES: [string, string[], Syntax][] = [
  ["C", ["c"], C],
  ["C Header", ["h"], C],
  ["C#", ["cs"], C],
  ["C++", ["cc", "cpp", "cxx"], C],
  ["C++ Header", ["hh", "hpp", "hxx"], C],
  ["CSS", ["css"], CSS],
  ["Dockerfile", ["=dockerfile", "dockerfile"], YAML],
  ["Go", ["go"], GO],
  ["HTML", ["html", "htm"], XML],
  ["JSON", ["json"], PLAIN],
  ["JSX", ["jsx"], JAVASCRIPT],
  ["Java", ["java"], C],
  ["JavaScript", ["js", "mjs", "cjs"], JAVASCRIPT],
  ["Kotlin", ["kt", "kts"], NESTED_C],
  ["Lua", ["lua"], LUA],
  ["Makefile", ["=makefile", "mk"], MAKE],
  ["Markdown", ["md", "markdown"], PROSE],
  ["PHP", ["php"], PHP],
  ["Perl", ["pl", "pm"], PERL],
  ["Plain Text", ["txt"], PROSE],
  ["Python", ["py", "pyi"], PYTHON],
  ["Ruby", ["rb"], RUBY],
  ["Rust", ["rs"], RUST],
  ["SQL", ["sql"], SQL],
  ["SVG", ["svg"], XML],
  ["Sass", ["scss"], C],
  ["Scala", ["scala"], NESTED_C],
  ["Shell", ["sh", "bash"], HASH],
  ["Swift", ["swift"], NESTED_C],
  ["TOML", ["toml"], TOML],
  ["TSX", ["tsx"], JAVASCRIPT],
  ["TypeScript", ["ts", "mts", "cts"], JAVASCRIPT],
  ["XML", ["xml"], XML],
  ["YAML", ["yml", "yaml"], YAML],
  ["Zig", ["zig"], ZIG],
];

/** Returns the syntax of the language called `name`. */
export function syntaxOf(name: string): Syntax | undefined {
  return LANGUAGES.find(([language]) => language === name)?.[2];
}

/** Returns the name of the language of the files called `name`. */
export function languageOf(name: string): string | undefined {
  const lower = name.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
  const point = lower.lastIndexOf(".");
  const end = point < 0 ? `=${lower}` : lower.slice(point + 1);
  return LANGUAGES.find(([, ends]) => ends.includes(end))?.[0];
}
