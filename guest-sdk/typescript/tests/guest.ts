/**
 * A guest without the SDK. `npm run check` also compiles it with the libraries that a compiler
 * includes by default, which declare a browser's globals.
 *
 * @module
 */

import {
  get,
  getRange,
  type Job,
  ManifoldError,
  putBlob,
  putTree,
  size,
  tree,
} from "manifold:guest";

export default async ({ args }: Job): Promise<{ kind: "tree"; hash: string }> => {
  const [input] = await tree(args);
  if (input === undefined) throw new Error("there is no argument");
  const bytes: Uint8Array<ArrayBuffer> = new TextEncoder().encode("text");
  console.log(input, await size(input.hash), await getRange(input.hash, 0, bytes.length));
  queueMicrotask(() => console.warn("later"));
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await get(input.hash));
    const entry = { name: "out", kind: "blob" as const, hash: await putBlob(text) };
    return { kind: "tree", hash: await putTree(new Set([entry])) };
  } catch (error) {
    if (error instanceof ManifoldError) console.error(error.kind, error.chain[0]);
    throw error;
  }
};
