/**
 * A pre-visitor for fold: returns the entries of `in` that are directories. For a blob, it returns
 * an empty tree.
 *
 * @module
 */

import { main, tree } from "./sdk.ts";

export default main(async (job) => {
  const input = job.required("in");
  const entries = input.kind === "tree" ? await tree(input.hash) : [];
  return entries.filter((entry) => entry.kind === "tree");
});
