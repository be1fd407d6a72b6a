/**
 * The TypeScript SDK for Manifold guests. A guest is an ordinary function.
 *
 * ```ts
 * import { get, main } from "./sdk.ts";
 *
 * // Returns the argument `in` in upper case.
 * export default main(async (job) => {
 *   const content = await get(job.required("in").hash);
 *   return new TextDecoder("utf-8", { fatal: true }).decode(content).toUpperCase();
 * });
 * ```
 *
 * The function's return value becomes the outcome: text and bytes are stored as a blob, entries are
 * stored as a tree, and an object with a `kind` and a `hash` is the outcome itself. If the function
 * throws, the job fails with the message of the error. The error of a nested run that it does not
 * catch keeps the causes of that run.
 *
 * @module
 */

import {
  get,
  type Job as RawJob,
  type Kind,
  type NewEntry,
  type Outcome,
  type Request,
  runMany as runManyResults,
  tree,
  type TreeEntry,
} from "manifold:guest";

export {
  fail,
  get,
  getRange,
  log,
  ManifoldError,
  putBlob,
  putTree,
  run,
  size,
  tree,
} from "manifold:guest";
export type { EntryKind, Kind, Mode, NewEntry, Outcome, Request, TreeEntry } from "manifold:guest";

/** A value that a guest can return as its outcome. See the description of this module. */
export type IntoOutcome = string | Uint8Array | readonly NewEntry[] | Outcome;

/** Makes a function the guest's entry point. A guest exports the result as its default. */
export function main(
  entry: (job: Job) => IntoOutcome | Promise<IntoOutcome>,
): (job: RawJob) => Promise<IntoOutcome> {
  return async (job) => await entry(new Job(job, await tree(job.args)));
}

/** The request that the guest runs. */
export class Job {
  /** The image reference of the running guest, with which a recursive guest runs itself. */
  readonly image: string;
  /** The id of the tree of named images. Empty if there is no such tree. */
  readonly std: string;
  /** The request's salt, which is part of the memo key. */
  readonly salt: string;
  /** The arguments: the entries of the request's `args` tree, in git's order. */
  readonly args: readonly TreeEntry[];

  constructor(job: RawJob, args: readonly TreeEntry[]) {
    this.image = job.image;
    this.std = job.std;
    this.salt = job.salt;
    this.args = args;
  }

  /** Returns the argument `name`, or `undefined` if it is missing. */
  optional(name: string): TreeEntry | undefined {
    return this.args.find((entry) => entry.name === name && entry.nameBytes === undefined);
  }

  /** Returns the argument `name`. Throws if it is missing. */
  required(name: string): TreeEntry {
    const entry = this.optional(name);
    if (entry === undefined) throw new Error(`the argument \`${name}\` is missing`);
    return entry;
  }
}

/** The name of an entry: text, or raw bytes if the name is not valid UTF-8. */
export type Name = string | Pick<TreeEntry, "name" | "nameBytes">;

/**
 * Returns a tree entry that names the object, with the plain mode of its kind, for use in a tree of
 * arguments or children.
 */
export function named(object: { kind: TreeEntry["kind"]; hash: string }, name: Name): NewEntry {
  const names = typeof name === "string"
    ? { name }
    : { name: name.name, nameBytes: name.nameBytes };
  return { ...names, kind: object.kind, hash: object.hash };
}

/**
 * Returns the object that an entry names, as an outcome. Throws if the entry is a submodule,
 * because its commit belongs to another repository.
 */
export function object(entry: TreeEntry): Outcome {
  if (entry.kind === "commit") {
    throw new Error(`\`${entry.name}\` is a submodule, whose commit belongs to another repository`);
  }
  const kind: Kind = entry.kind;
  return { kind, hash: entry.hash };
}

/** Reads a blob as text. Throws if it is not valid UTF-8. */
export async function text(hash: string): Promise<string> {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await get(hash));
}

/**
 * Runs images concurrently and returns their outcomes in the order of `requests`. If runs fail,
 * throws the error of the first failed run in that order.
 */
export async function runAll(requests: readonly Request[]): Promise<Outcome[]> {
  const results = await runManyResults(requests);
  return results.map((result) => {
    if (result.error !== undefined) throw result.error;
    return result;
  });
}
