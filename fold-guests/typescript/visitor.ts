/** What fold visitors that add up numbers have in common. @module */

import { type Job, text, tree, type TreeEntry } from "./sdk.ts";

const MAX = 2n ** 64n - 1n;

/** Answers `leaf` of a blob, and for a tree the sum of what its children answered, as decimal digits and a newline. */
export async function sum(job: Job, leaf: (blob: TreeEntry) => number | Promise<number>): Promise<string> {
  const input = job.required("in");
  if (input.kind === "blob") return `${await leaf(input)}\n`;
  const children = await tree(job.required("children").hash);
  const numbers = await Promise.all(children.map(number));
  const total = numbers.reduce((total, number) => total + number, 0n);
  if (total > MAX) throw new Error("the sum is over 64 bits");
  return `${total}\n`;
}

async function number(child: TreeEntry): Promise<bigint> {
  const digits = /^\+?([0-9]+)\n$/.exec(await text(child.hash))?.[1];
  const number = digits === undefined ? undefined : BigInt(digits);
  if (number === undefined || number > MAX) {
    throw new Error(`the result for \`${child.name}\` is no number and a newline`);
  }
  return number;
}
