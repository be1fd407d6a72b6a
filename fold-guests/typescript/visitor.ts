/** The shared code of the fold visitors that add up numbers. @module */

import { type Job, text, tree, type TreeEntry } from "./sdk.ts";

const MAX = 2n ** 64n - 1n;

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
  const total = numbers.reduce((total, number) => total + number, 0n);
  if (total > MAX) throw new Error("the sum does not fit in 64 bits");
  return `${total}\n`;
}

/** Reads the result of a child. */
async function number(child: TreeEntry): Promise<bigint> {
  const digits = /^\+?([0-9]+)\n$/.exec(await text(child.hash))?.[1];
  const number = digits === undefined ? undefined : BigInt(digits);
  if (number === undefined || number > MAX) {
    throw new Error(
      `the result for \`${child.name}\` is not a decimal number followed by a newline`,
    );
  }
  return number;
}
