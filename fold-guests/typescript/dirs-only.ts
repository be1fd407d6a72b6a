/** A fold's pre-visitor: of the entries of `in`, the directories. A blob has none. @module */

import { main, tree } from "./sdk.ts";

export default main(async (job) => {
  const input = job.required("in");
  const entries = input.kind === "tree" ? await tree(input.hash) : [];
  return entries.filter((entry) => entry.kind === "tree");
});
