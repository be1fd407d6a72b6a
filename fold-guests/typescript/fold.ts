/**
 * `fold(in, post, pre?, with?)`: visits a tree from the leaves up.
 *
 * 1. The children are determined. With `pre`, they are the entries of the tree that `pre` returns
 *    for the arguments `{in}`. Without `pre`, they are the entries of `in` if it is a tree, and
 *    there are none if it is a blob. Submodules are skipped, because their commits belong to other
 *    repositories.
 * 2. All children are folded in one `runMany`. Without `pre`, a blob is passed directly to
 *    `post`, with an empty tree of children. Any other child is a request for fold itself.
 * 3. The results are stored in a tree `children` under the children's names. The outcome is the
 *    object that `post` returns for the arguments `{children, in}`.
 *
 * `with` is a tree. Its entries are further arguments of every call of `post` and `pre`.
 *
 * @module
 */

import {
  type Job,
  main,
  named,
  object,
  type Outcome,
  putTree,
  run,
  runAll,
  text,
  tree,
  type TreeEntry,
} from "./sdk.ts";

export default main(async (job) => {
  const input = object(job.required("in"));
  const post = await visitor(job.required("post"));
  const pre = job.optional("pre");
  const further = await furtherArguments(job);

  const children = await childrenOf(input, pre, further);
  const noChildren: Outcome = { kind: "tree", hash: await putTree([]) };
  const requests = await Promise.all(children.map(async (child) => {
    const folded = object(child);
    return folded.kind === "blob" && pre === undefined
      ? { image: post, args: await visit(noChildren, folded, further) }
      : { image: job.image, args: await recurse(job, folded) };
  }));
  const results = await runAll(requests);

  const folded = children.map((child, at) => named(results[at]!, child));
  const all: Outcome = { kind: "tree", hash: await putTree(folded) };
  return await run(post, await visit(all, input, further));
});

/**
 * Returns the image reference that the blob `argument` holds. White space around it is trimmed,
 * because `echo` writes a trailing newline.
 */
async function visitor(argument: TreeEntry): Promise<string> {
  return (await text(argument.hash)).replace(/^[ \t\n\r\f]+|[ \t\n\r\f]+$/g, "");
}

/** Returns the entries of the argument `with`. */
async function furtherArguments(job: Job): Promise<TreeEntry[]> {
  const argument = job.optional("with");
  if (argument === undefined) return [];
  if (argument.kind !== "tree") throw new Error("`with` must be a tree of arguments");
  const further = await tree(argument.hash);
  if (further.some(({ name }) => name === "in" || name === "children")) {
    throw new Error("`with` must not contain `in` or `children`, which fold passes");
  }
  return further;
}

/** Stores the arguments tree of `post`. */
function visit(children: Outcome, input: Outcome, further: TreeEntry[]): Promise<string> {
  return putTree([named(children, "children"), named(input, "in"), ...further]);
}

/** Stores the arguments tree of a nested fold: the arguments of `job`, with `child` as `in`. */
function recurse(job: Job, child: Outcome): Promise<string> {
  const visitors = ["post", "pre", "with"]
    .map((name) => job.optional(name))
    .filter((entry) => entry !== undefined);
  return putTree([named(child, "in"), ...visitors]);
}

/** Returns the children of `input`, without submodules. */
async function childrenOf(
  input: Outcome,
  pre: TreeEntry | undefined,
  further: TreeEntry[],
): Promise<TreeEntry[]> {
  const parent = pre === undefined
    ? input
    : await run(await visitor(pre), await putTree([named(input, "in"), ...further]));
  if (parent.kind !== "tree") {
    if (pre === undefined) return [];
    throw new Error("`pre` must return a tree");
  }
  return (await tree(parent.hash)).filter((entry) => entry.kind !== "commit");
}
