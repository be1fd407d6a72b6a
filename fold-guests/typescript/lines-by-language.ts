/**
 * A fold visitor that counts lines by language: a table with the files, and the lines of code, of
 * comments and without content.
 *
 * A file's language follows from its name, which only its directory knows. So for a directory, this
 * guest runs itself for each file in it, with the argument `language`, and adds up the results and
 * those for the directories in it. For a file without a language, it returns an empty table.
 *
 * @module
 */

import {
  get,
  type Job,
  main,
  named,
  putBlob,
  putTree,
  runAll,
  text,
  tree,
  type TreeEntry,
} from "./sdk.ts";
import { languageOf, type Syntax, syntaxOf, type Text } from "./languages.ts";
import { compare, isBinary, linesOf, shown, trim } from "./visitor.ts";

const HEAD = "language\tfiles\tcode\tcomments\tblanks\n";
const COLUMNS = 4;
const MAX = 2n ** 64n - 1n;

/** The numbers of each language. */
type Table = Map<string, bigint[]>;

export default main(async (job) => {
  const input = job.required("in");
  const argument = job.optional("language");
  const table: Table = new Map();
  if (input.kind === "tree") {
    if (argument !== undefined) throw new Error("`language` is an argument for a single file");
    for (const result of await files(job, input)) add(table, "a file", await text(result.hash));
    for (const child of await tree(job.required("children").hash)) {
      add(table, shown(child), await text(child.hash));
    }
  } else if (argument !== undefined) {
    const name = (await text(argument.hash)).replace(/^[ \t\n\f\r]+|[ \t\n\f\r]+$/g, "");
    const syntax = syntaxOf(name);
    if (syntax === undefined) throw new Error(`\`${name}\` is not a language that is known`);
    const lines = countLines(await get(input.hash), syntax);
    if (lines !== undefined) table.set(name, [1, ...lines].map(BigInt));
  }
  const rows = [...table].sort(([one], [other]) => compare(one, other));
  const lines = rows.map(([language, numbers]) => `${[language, ...numbers].join("\t")}\n`);
  return HEAD + lines.join("");
});

/** Counts the lines of each file in a directory whose language is known. */
async function files(job: Job, directory: TreeEntry) {
  const requests = [];
  for (const entry of await tree(directory.hash)) {
    const isFile = entry.mode === "100644" || entry.mode === "100755";
    const bytes = entry.nameBytes;
    const name = bytes === undefined ? entry.name : String.fromCharCode(...bytes);
    const language = isFile ? languageOf(name) : undefined;
    if (language !== undefined) {
      const argument = named({ kind: "blob", hash: await putBlob(language) }, "language");
      requests.push({ image: job.image, args: await putTree([named(entry, "in"), argument]) });
    }
  }
  return await runAll(requests);
}

/** Adds the numbers of a result. */
function add(table: Table, name: string, result: string): void {
  const invalid = () => new Error(`the result for \`${name}\` is not a table of lines`);
  if (!result.startsWith(HEAD)) throw invalid();
  for (const row of result.slice(HEAD.length).split("\n").slice(0, -1)) {
    const [language, ...numbers] = row.split("\t");
    if (numbers.length < COLUMNS || !numbers.every((number) => /^[0-9]+$/.test(number))) {
      throw invalid();
    }
    const before = table.get(language!) ?? numbers.map(() => 0n);
    const total = before.map((number, column) => number + BigInt(numbers[column]!));
    if (total.some((number) => number > MAX)) throw invalid();
    table.set(language!, total);
  }
}

/** What a line begins inside of: a comment, and how many contain it, or a string. */
type Inside =
  | { kind: "comment"; start: string; end: string; depth: number }
  | { kind: "string"; end: string; text: Text }
  | undefined;

/**
 * Returns the number of lines of code, of comments, and without content, or `undefined` for a binary
 * file. A line with code and a comment counts as code.
 */
function countLines(content: Uint8Array, syntax: Syntax): [number, number, number] | undefined {
  if (isBinary(content)) return undefined;
  if (content.length === 0) return [0, 0, 0];
  const starts = startsOf(syntax);
  let [code, comments, blanks] = [0, 0, 0];
  let inside: Inside;
  for (const line of linesOf(content)) {
    const trimmed = trim(line, " \t\f\r");
    if (trimmed === "") {
      // In a string, it is part of its value.
      if (inside?.kind === "string") code += 1;
      else blanks += 1;
      continue;
    }
    const [hasCode, after] = read(trimmed, inside, syntax, starts);
    inside = after;
    if (hasCode) code += 1;
    else comments += 1;
  }
  return [code, comments, blanks];
}

/**
 * Returns the characters that a comment or a string can start with, or other code that is looked at
 * as a whole.
 */
function startsOf(syntax: Syntax): Set<string> {
  const pairs = [...syntax.block, ...syntax.strings].map(([start]) => start);
  return new Set([...syntax.line, ...pairs, ...syntax.code].map((start) => start[0] ?? ""));
}

/** Returns whether there is code in a line, and what the next line begins inside of. */
function read(
  line: string,
  inside: Inside,
  syntax: Syntax,
  starts: Set<string>,
): [boolean, Inside] {
  // An empty mark makes every line a comment.
  if (syntax.line.includes("")) return [false, inside];
  let code = false;
  let at = 0;
  while (at < line.length) {
    const startsHere = (start: string) => line.startsWith(start, at);
    if (inside?.kind === "comment") {
      const { start, end, depth }: { start: string; end: string; depth: number } = inside;
      if (startsHere(end)) {
        inside = depth === 0 ? undefined : { ...inside, depth: depth - 1 };
        at += end.length;
      } else if (syntax.nested && startsHere(start)) {
        inside = { ...inside, depth: depth + 1 };
        at += start.length;
      } else at += 1;
    } else if (inside?.kind === "string") {
      code = true;
      if (startsHere(inside.end)) {
        at += inside.end.length;
        inside = undefined;
      } else at += line[at] === "\\" && inside.text !== "raw" ? 2 : 1;
    } else if (!starts.has(line[at]!)) {
      code ||= !/[ \t\f\r]/.test(line[at]!);
      at += 1;
    } else {
      const block = syntax.block.find(([start]) => startsHere(start));
      const plain = syntax.code.find(startsHere);
      const string = syntax.strings.find(([start]) => startsHere(start));
      if (block !== undefined) {
        inside = { kind: "comment", start: block[0], end: block[1], depth: 0 };
        at += block[0].length;
      } else if (syntax.line.some(startsHere)) {
        return [code, inside];
      } else if (plain !== undefined) {
        code = true;
        at += plain.length;
      } else if (string !== undefined) {
        const [start, end, text]: [string, string, Text] = string;
        inside = { kind: "string", end, text };
        at += start.length;
      } else {
        code ||= !/[ \t\f\r]/.test(line[at]!);
        at += 1;
      }
    }
  }
  if (inside?.kind === "string" && inside.text === "line") return [true, undefined];
  return [code, inside];
}
