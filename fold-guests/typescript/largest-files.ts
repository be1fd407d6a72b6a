/**
 * A fold visitor that lists the largest files: a table with their paths and sizes. The argument
 * `count` is the number of files to list, 10 without it.
 *
 * @module
 */

import { type Job, main, size, text, tree } from "./sdk.ts";
import { compare, shown } from "./visitor.ts";

const HEAD = "path\tbytes\n";

export default main(async (job) => {
  const input = job.required("in");
  const files: { path: string; bytes: number }[] = [];
  if (input.kind === "blob") {
    files.push({ path: "", bytes: await size(input.hash) });
  } else {
    for (const child of await tree(job.required("children").hash)) {
      const name = shown(child);
      const table = await text(child.hash);
      if (!table.startsWith(HEAD)) throw notATable(name);
      for (const row of table.slice(HEAD.length).split("\n").slice(0, -1)) {
        const [path, bytes] = row.split("\t");
        if (path === undefined || bytes === undefined) throw notATable(name);
        files.push({ path: path === "" ? name : `${name}/${path}`, bytes: Number(bytes) });
      }
    }
  }
  files.sort((one, other) => other.bytes - one.bytes || compare(one.path, other.path));
  const rows = files.slice(0, await count(job)).map(({ path, bytes }) => `${path}\t${bytes}\n`);
  return HEAD + rows.join("");
});

/** Returns the argument `count`. */
async function count(job: Job): Promise<number> {
  const argument = job.optional("count");
  if (argument === undefined) return 10;
  const digits = /^[ \t\n\f\r]*\+?([0-9]+)[ \t\n\f\r]*$/.exec(await text(argument.hash))?.[1];
  const count = Number(digits);
  if (!(count >= 1 && count <= 100_000)) {
    throw new Error("`count` must be a number from 1 to 100000");
  }
  return count;
}

function notATable(name: string): Error {
  return new Error(`the result for \`${name}\` is not a table of files`);
}
