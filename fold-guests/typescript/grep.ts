/**
 * A fold visitor that lists the lines that match the argument `pattern`.
 *
 * A pattern is made of characters, `.`, `[…]`, `(…)`, `(?:…)`, `|`, `*`, `+`, `?`, `{m,n}`, `^`,
 * `$`, and `\` before a punctuation character or one of `d D w W s S b B t`, which only stand for ASCII.
 *
 * @module
 */

import { get, main } from "./sdk.ts";
import { findings } from "./visitor.ts";

export default main(async (job) => {
  const pattern = parse(await get(job.required("pattern").hash));
  return await findings(job, (line) => pattern.test(line) ? line : undefined);
});

/**
 * Parses a pattern. A line break at its end is not a part of it, because `echo` writes one. Throws if it
 * is not UTF-8, or contains what other engines read differently.
 */
function parse(bytes: Uint8Array): RegExp {
  let pattern;
  try {
    pattern = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Error("`pattern` is not valid UTF-8");
  }
  pattern = pattern.replace(/\r?\n$/, "");
  if (pattern.includes("\n")) {
    throw new Error("`pattern` has several lines, and is compared with each line");
  }
  const translated = translate(pattern);
  try {
    return new RegExp(translated, "su");
  } catch {
    throw new Error(`\`pattern\` is not a regular expression: ${pattern}`);
  }
}

/** What an escape stands for, in brackets and outside of them. */
const ESCAPES: Record<string, [string | undefined, string]> = {
  d: ["0-9", "[0-9]"],
  w: ["0-9A-Za-z_", "[0-9A-Za-z_]"],
  s: [" \\t\\n\\v\\f\\r", "[ \\t\\n\\v\\f\\r]"],
  D: [undefined, "[^0-9]"],
  W: [undefined, "[^0-9A-Za-z_]"],
  S: [undefined, "[^ \\t\\n\\v\\f\\r]"],
  b: [undefined, "\\b"],
  B: [undefined, "\\B"],
  t: ["\\t", "\\t"],
};
const PUNCTUATION = /^[!-/:-@[-`{-~]$/;
/** The characters that the engine accepts after a backslash. */
const SYNTAX = /^[\^$\\.*+?()[\]{}|/]$/;

/** Translates a pattern into the syntax of the engine. */
function translate(pattern: string): string {
  const unsupported = (what: string) => new Error(`\`pattern\` contains ${what}: ${pattern}`);
  const characters = [...pattern];
  let out = "";
  // Whether the last character was the start of `[…]`, or is inside of it.
  let [startsClass, inClass] = [false, false];
  // Whether the last character ended a repetition, one that prefers to be short, or a position such
  // as `^`.
  let [repeats, isLazy, isPosition] = [false, false, false];
  // Whether the last characters in brackets were an escape for several characters, such as `\d`.
  let isSet = false;
  for (let at = 0; at < characters.length; at += 1) {
    const character = characters[at]!;
    const [wasStart, repeated, wasLazy, wasPosition] = [startsClass, repeats, isLazy, isPosition];
    [startsClass, repeats, isLazy, isPosition] = [false, false, false, false];
    if (wasPosition && "*+?{".includes(character)) throw unsupported("a repetition of a position");
    const wasSet = isSet;
    isSet = false;
    if (wasSet && inClass && character === "-" && characters[at + 1] !== "]") {
      throw unsupported("a range of a set; write `\\-`");
    }
    if (character === "\\") {
      const escaped = characters[at += 1] ?? "";
      isSet = inClass && /^[dws]$/.test(escaped);
      if (isSet && /(?<![[\\])-$/.test(out)) {
        throw unsupported("a range of a set; write `\\-`");
      }
      const escape = Object.hasOwn(ESCAPES, escaped) ? ESCAPES[escaped]! : [];
      const known = escape[inClass ? 0 : 1];
      if (known !== undefined) out += known;
      else if (PUNCTUATION.test(escaped)) {
        const escapes = SYNTAX.test(escaped) || (inClass && escaped === "-");
        out += escapes ? `\\${escaped}` : escaped;
      } else throw unsupported("an unknown escape");
      isPosition = !inClass && (escaped === "b" || escaped === "B");
    } else if (character === "[") {
      if (inClass) throw unsupported("`[` in brackets; write `\\[`");
      [inClass, startsClass] = [true, true];
      out += "[";
      if (characters[at + 1] === "^") out += characters[at += 1];
    } else if (character === "]" && wasStart) {
      throw unsupported("empty brackets; write `\\]`");
    } else if (character === "]" && inClass) {
      inClass = false;
      out += "]";
    } else if (inClass) {
      if (character === "-" && out.endsWith("-")) throw unsupported("`--`; write `\\-`");
      out += character;
    } else if (character === "(" && characters[at + 1] === "?") {
      if (characters[at + 2] !== ":") throw unsupported("`(?` without `:`");
      at += 2;
      out += "(?:";
    } else if (character === "*" || character === "+" || character === "?") {
      if (wasLazy || (repeated && character !== "?")) {
        throw unsupported("a repetition of a repetition");
      }
      [repeats, isLazy] = [true, repeated];
      out += character;
    } else if (character === "]" || character === "}") {
      throw unsupported("an unpaired bracket; write `\\` before it");
    } else if (character === "{") {
      const end = characters.indexOf("}", at);
      const bounds = characters.slice(at + 1, end < 0 ? undefined : end).join("");
      if (repeated || end < 0 || !/^[0-9]{1,4}(,([0-9]{1,4})?)?$/.test(bounds)) {
        throw unsupported("`{` that starts no repetition; write `\\{`");
      }
      at = end;
      repeats = true;
      out += `{${bounds}}`;
    } else {
      isPosition = character === "^" || character === "$";
      out += character;
    }
  }
  return out;
}
