/**
 * A fold visitor that finds files with the same content.
 *
 * For a directory, it returns a tree of `files`, the number of files that another one could replace,
 * `bytes`, their size, and if there are some `copies`: for each content a line with its size and the
 * paths of its files, separated by tabs. What could save most comes first. Empty files and symbolic
 * links are left out. For a file, it returns an empty text.
 *
 * Copies can be in different directories, so this visitor reads all trees below its directory
 * instead of the results for its children. It reads no file.
 *
 * @module
 */

import { main, named, type NewEntry, putBlob, size, tree } from "./sdk.ts";
import { compare, shown } from "./visitor.ts";

export default main(async (job) => {
  const input = job.required("in");
  if (input.kind === "blob") return "";
  const paths = new Map<string, string[]>();
  const directories = [{ hash: input.hash, path: "" }];
  for (let directory; (directory = directories.pop()) !== undefined;) {
    for (const entry of await tree(directory.hash)) {
      const path = directory.path + shown(entry);
      if (entry.kind === "tree") directories.push({ hash: entry.hash, path: `${path}/` });
      else if (entry.mode === "100644" || entry.mode === "100755") {
        const same = paths.get(entry.hash);
        if (same === undefined) paths.set(entry.hash, [path]);
        else same.push(path);
      }
    }
  }
  const copies: { saved: number; bytes: number; paths: string[] }[] = [];
  for (const [hash, same] of paths) {
    if (same.length === 1) continue;
    const bytes = await size(hash);
    same.sort(compare);
    if (bytes > 0) copies.push({ saved: bytes * (same.length - 1), bytes, paths: same });
  }
  copies.sort((one, other) => other.saved - one.saved || compare(one.paths[0]!, other.paths[0]!));

  const files = copies.reduce((files, { paths }) => files + paths.length - 1, 0);
  const bytes = copies.reduce((bytes, { saved }) => bytes + saved, 0);
  const result = [await entry("bytes", `${bytes}`), await entry("files", `${files}`)];
  if (files > 0) {
    const lines = copies.map(({ bytes, paths }) => [bytes, ...paths].join("\t"));
    result.push(await entry("copies", lines.join("\n")));
  }
  return result;
});

/** Stores a text, and returns it as an entry. */
async function entry(name: string, text: string): Promise<NewEntry> {
  return named({ kind: "blob", hash: await putBlob(`${text}\n`) }, name);
}
