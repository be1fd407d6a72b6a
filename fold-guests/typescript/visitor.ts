/** The shared code of the fold visitors. @module */

import {
  get,
  type Job,
  named,
  type NewEntry,
  putBlob,
  putTree,
  text,
  tree,
  type TreeEntry,
} from "./sdk.ts";

const MAX = 2n ** 64n - 1n;
/** The first bytes of a file, in which git looks for a zero byte. */
const LOOKED_AT = 8000;
const NEWLINE = 0x0a;
/** The least length of the pieces in which a file is decoded. */
const PIECE_BYTES = 1 << 20;

/**
 * Returns the result of `leaf` for a blob, or the sum of the children's results for a tree. The
 * returned text consists of decimal digits and a newline.
 *
 * Throws if a child's result is not a number followed by a newline, or if the sum does not fit in
 * 64 bits.
 */
export async function sum(
  job: Job,
  leaf: (blob: TreeEntry) => number | Promise<number>,
): Promise<string> {
  const input = job.required("in");
  if (input.kind === "blob") return `${await leaf(input)}\n`;
  const children = await tree(job.required("children").hash);
  const numbers = await Promise.all(children.map(number));
  return `${numbers.reduce(add, 0n)}\n`;
}

/**
 * Returns how often each name occurs. For a file, it is the text of the name that `leaf` returns, and
 * a newline, or nothing. For a directory, it is a tree: the returned entries have the names, and each
 * is a blob of decimal digits and a newline.
 *
 * Throws as `sum` does.
 */
export async function tally(
  job: Job,
  leaf: (blob: TreeEntry) => Promise<string | undefined>,
): Promise<string | NewEntry[]> {
  const input = job.required("in");
  if (input.kind === "blob") {
    const name = await leaf(input);
    return name === undefined ? "" : `${name}\n`;
  }
  // Many children have the same result, which is read once.
  const results = new Map<string, { kind: string; times: bigint }>();
  for (const { hash, kind } of await tree(job.required("children").hash)) {
    results.set(hash, { kind, times: (results.get(hash)?.times ?? 0n) + 1n });
  }
  const tally = new Map<string, bigint>();
  const count = (name: string, times: bigint) => tally.set(name, add(tally.get(name) ?? 0n, times));
  for (const [result, { kind, times }] of results) {
    if (kind === "blob") {
      const name = (await text(result)).replace(/\n$/, "");
      if (name !== "") count(name, times);
    } else {
      for (const entry of await tree(result)) count(entry.name, (await number(entry)) * times);
    }
  }
  return await Promise.all([...tally].map(([name, count]) => numberEntry(name, count)));
}

/**
 * Returns the lines in which `find` finds something, of a file or of all files below a directory.
 *
 * For a file, it is a text with `NUMBER:TEXT` for each line, where `TEXT` is what `find` returned.
 * For a directory, it is a tree of `count`, a number as `number` reads it, and unless that is 0
 * `lines`: a tree with those of each child that has some.
 *
 * A line ends before a line feed, or before a carriage return and a line feed. What is not UTF-8 is
 * replaced by U+FFFD. Nothing is found in a binary file.
 */
export async function findings(
  job: Job,
  find: (line: string) => string | undefined,
): Promise<string | NewEntry[]> {
  const input = job.required("in");
  if (input.kind === "blob") {
    const content = await get(input.hash);
    if (isBinary(content)) return "";
    const found = [];
    let number = 0;
    for (const line of linesOf(content)) {
      number += 1;
      const text = find(line);
      if (text !== undefined) found.push(`${number}:${text}\n`);
    }
    return found.join("");
  }
  const nothing = [await putBlob(""), await putTree([await numberEntry("count", 0n)])];
  let count = 0n;
  const lines: NewEntry[] = [];
  for (const child of await tree(job.required("children").hash)) {
    if (nothing.includes(child.hash)) continue;
    if (child.kind === "blob") {
      const found = (await get(child.hash)).filter((byte) => byte === NEWLINE).length;
      count = add(count, BigInt(found));
      lines.push(child);
      continue;
    }
    for (const entry of await tree(child.hash)) {
      if (entry.name === "count") count = add(count, await number(entry));
      else if (entry.name === "lines") {
        lines.push({ ...named({ kind: entry.kind, hash: entry.hash }, child), mode: entry.mode });
      } else throw new Error(`the result for \`${child.name}\` is not one of this visitor`);
    }
  }
  const found = [await numberEntry("count", count)];
  if (count > 0n) found.push(named({ kind: "tree", hash: await putTree(lines) }, "lines"));
  return found;
}

/** Stores a number as `number` reads it. */
async function numberEntry(name: string, number: bigint): Promise<NewEntry> {
  return named({ kind: "blob", hash: await putBlob(`${number}\n`) }, name);
}

/**
 * Returns the lines of a file, without the line feeds and the carriage returns before these. The file
 * is decoded in pieces of whole lines, because it can be longer than a text can be.
 */
export function* linesOf(content: Uint8Array): Generator<string> {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let start = 0;
  while (start < content.length) {
    const newline = content.indexOf(NEWLINE, start + PIECE_BYTES);
    const end = newline < 0 ? content.length : newline + 1;
    const lines = decoder.decode(content.subarray(start, end)).split("\n");
    const last = lines.pop()!;
    for (const line of lines) yield line.endsWith("\r") ? line.slice(0, -1) : line;
    if (last !== "") yield last;
    start = end;
  }
}

/**
 * Removes these characters from both ends of a text. A regular expression would look at the characters
 * in the middle again and again.
 */
export function trim(text: string, characters: string): string {
  let [start, end] = [0, text.length];
  while (start < end && characters.includes(text[start]!)) start += 1;
  while (end > start && characters.includes(text[end - 1]!)) end -= 1;
  return text.slice(start, end);
}

/** Returns whether git takes a file for binary: there is a zero byte at the start of its content. */
export function isBinary(content: Uint8Array): boolean {
  return content.subarray(0, LOOKED_AT).includes(0);
}

/**
 * Returns the name of a file as text without tabs and line feeds. A backslash and control characters
 * are escaped, and so is each byte that is not ASCII if the name is not valid UTF-8.
 */
export function shown(entry: TreeEntry): string {
  const bytes = entry.nameBytes;
  const name = bytes === undefined ? entry.name : String.fromCharCode(...bytes);
  const escaped = bytes === undefined ? /[\\\x00-\x1f\x7f]/g : /[\\\x00-\x1f\x7f-\xff]/g;
  return name.replace(escaped, (c) => {
    if (c === "\\") return "\\\\";
    if (c === "\t") return "\\t";
    if (c === "\n") return "\\n";
    return `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

/** Reads a blob that consists of decimal digits and a newline. Throws if it is anything else. */
export async function number(entry: TreeEntry): Promise<bigint> {
  const digits = /^\+?([0-9]+)\n$/.exec(await text(entry.hash))?.[1];
  const number = digits === undefined ? undefined : BigInt(digits);
  if (number === undefined || number > MAX) {
    throw new Error(
      `the result for \`${entry.name}\` is not a decimal number followed by a newline`,
    );
  }
  return number;
}

function add(one: bigint, other: bigint): bigint {
  if (one + other > MAX) throw new Error("the sum does not fit in 64 bits");
  return one + other;
}

/** Compares texts by their code points, and so in the order of their UTF-8 bytes. */
export function compare(one: string, other: string): number {
  const [left, right] = [one[Symbol.iterator](), other[Symbol.iterator]()];
  for (;;) {
    const [a, b] = [left.next().value, right.next().value];
    if (a === undefined || b === undefined) return a === b ? 0 : a === undefined ? -1 : 1;
    if (a !== b) return a.codePointAt(0)! - b.codePointAt(0)!;
  }
}
