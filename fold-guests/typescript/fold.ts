/**
 * `fold(in, post, pre?)`: visits a tree from the leaves up.
 *
 * 1. The children are what `pre` answers for `{in}` (a tree), if there is a `pre`; else the entries of `in` if it is a tree; else there
 *    are none. A submodule is no child: its commit belongs to another repository.
 * 2. Every child is folded, all in one `runMany`: a blob without `pre` goes straight to `post` with no children, anything else is a
 *    request for fold itself.
 * 3. The results under the children's names are `children`, and what `post` answers for `{children, in}` is the outcome.
 *
 * @module
 */

import { type Job, main, named, object, type Outcome, putTree, run, runAll, text, tree, type TreeEntry } from "./sdk.ts";

export default main(async (job) => {
  const input = object(job.required("in"));
  const post = await visitor(job.required("post"));
  const pre = job.optional("pre");

  const children = await childrenOf(input, pre);
  const noChildren: Outcome = { kind: "tree", hash: await putTree([]) };
  const requests = await Promise.all(children.map(async (child) => {
    const folded = object(child);
    return folded.kind === "blob" && pre === undefined
      ? { image: post, args: await visit(noChildren, folded) }
      : { image: job.image, args: await recurse(job, folded) };
  }));
  const results = await runAll(requests);

  const folded = children.map((child, at) => named(results[at]!, child));
  return await run(post, await visit({ kind: "tree", hash: await putTree(folded) }, input));
});

/** A visitor is named by a blob that holds an image reference, perhaps with white space around it: `echo` writes some. */
async function visitor(argument: TreeEntry): Promise<string> {
  return (await text(argument.hash)).replace(/^[ \t\n\r\f]+|[ \t\n\r\f]+$/g, "");
}

/** The arguments of the visitor. */
function visit(children: Outcome, input: Outcome): Promise<string> {
  return putTree([named(children, "children"), named(input, "in")]);
}

/** The arguments of fold itself: its own, with `child` in the place of `in`. */
function recurse(job: Job, child: Outcome): Promise<string> {
  const visitors = ["post", "pre"].map((name) => job.optional(name)).filter((entry) => entry !== undefined);
  return putTree([named(child, "in"), ...visitors]);
}

async function childrenOf(input: Outcome, pre: TreeEntry | undefined): Promise<TreeEntry[]> {
  const parent = pre === undefined ? input : await run(await visitor(pre), await putTree([named(input, "in")]));
  if (parent.kind !== "tree") {
    if (pre === undefined) return [];
    throw new Error("`pre` has to answer a tree");
  }
  return (await tree(parent.hash)).filter((entry) => entry.kind !== "commit");
}
