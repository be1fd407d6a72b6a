/**
 * A guest for Manifold as an ordinary function.
 *
 * ```ts
 * import { get, main } from "./sdk.ts";
 *
 * // Answers the argument `in` in upper case.
 * export default main(async (job) => {
 *   const content = await get(job.required("in").hash);
 *   return new TextDecoder("utf-8", { fatal: true }).decode(content).toUpperCase();
 * });
 * ```
 *
 * Text or bytes that the function returns become a blob, entries a tree, and what has a `kind` and a `hash` is the outcome as it
 * is. What it throws ends the job with its words, and a nested run's failure that it lets through keeps that run's causes.
 *
 * @module
 */

import {
  get,
  type Job as RawJob,
  type Kind,
  ManifoldError,
  type NewEntry,
  type Outcome,
  type Request,
  runMany as runManyResults,
  tree,
  type TreeEntry,
} from "manifold:guest";

export { fail, get, log, ManifoldError, putBlob, putTree, run, tree } from "manifold:guest";
export type { EntryKind, Kind, Mode, NewEntry, Outcome, Request, TreeEntry } from "manifold:guest";

/** What an entry returns: see the head of this file. */
export type IntoOutcome = string | Uint8Array | readonly NewEntry[] | Outcome;

/** Makes a function the guest's entry; export it as the default. */
export function main(entry: (job: Job) => IntoOutcome | Promise<IntoOutcome>): (job: RawJob) => Promise<IntoOutcome> {
  return async (job) => await entry(new Job(job, await tree(job.args)));
}

/** What the guest was called with. */
export class Job {
  /** The running image: a recursive guest needs no name for itself. */
  readonly image: string;
  /** The id of the tree of named images; empty when there is none. */
  readonly std: string;
  /** The request's salt. */
  readonly salt: string;
  /** The arguments, in git's order. */
  readonly args: readonly TreeEntry[];

  constructor(job: RawJob, args: readonly TreeEntry[]) {
    this.image = job.image;
    this.std = job.std;
    this.salt = job.salt;
    this.args = args;
  }

  /** The argument `name`, if there is one. */
  optional(name: string): TreeEntry | undefined {
    return this.args.find((entry) => entry.name === name && entry.nameBytes === undefined);
  }

  /** The argument `name`, which the caller has to give. */
  required(name: string): TreeEntry {
    const entry = this.optional(name);
    if (entry === undefined) throw new Error(`the argument \`${name}\` is missing`);
    return entry;
  }
}

/** Anything that has a name: text, or bytes where those are no text. */
export type Name = string | Pick<TreeEntry, "name" | "nameBytes">;

/** An object under a name, with the plain mode of its kind, as arguments and children have it. */
export function named(object: { kind: TreeEntry["kind"]; hash: string }, name: Name): NewEntry {
  const names = typeof name === "string" ? { name } : { name: name.name, nameBytes: name.nameBytes };
  return { ...names, kind: object.kind, hash: object.hash };
}

/** An entry as an outcome. A submodule's commit is none. */
export function object(entry: TreeEntry): Outcome {
  if (entry.kind === "commit") throw new Error(`\`${entry.name}\` is a submodule, whose commit belongs to another repository`);
  const kind: Kind = entry.kind;
  return { kind, hash: entry.hash };
}

/** The text of a blob. */
export async function text(hash: string): Promise<string> {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await get(hash));
}

/** Runs images, some at a time, and answers in their order. Throws what the first of them that failed says. */
export async function runAll(requests: readonly Request[]): Promise<Outcome[]> {
  const results = await runManyResults(requests);
  return results.map((result) => {
    if (result.error !== undefined) throw result.error;
    return result;
  });
}
