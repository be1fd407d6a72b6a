// What a TypeScript or JavaScript guest of Manifold finds, for editors and compilers.

/** The operations of a guest. A guest's module exports its entry as the default: `(job: Job) => IntoOutcome`. */
declare module "manifold:guest" {
  /** What the guest was called with. The entry's only argument. */
  export interface Job {
    /** The id of the arguments tree. */
    readonly args: string;
    /** The id of the tree of named images; empty when there is none. */
    readonly std: string;
    /** The request's salt. */
    readonly salt: string;
    /** The running image: a recursive guest needs no name for itself. */
    readonly image: string;
  }

  /** What an outcome can be. */
  export type Kind = "blob" | "tree";

  /** What an entry can be. A commit is a submodule's, and belongs to another repository. */
  export type EntryKind = Kind | "commit";

  /** Git's modes: a directory, a file, an executable file, a symbolic link, a submodule. */
  export type Mode = "40000" | "100644" | "100755" | "120000" | "160000";

  /** An entry of a tree. */
  export interface TreeEntry {
    /** The name; where that is not UTF-8, for people only. */
    name: string;
    /** The name, where it is not UTF-8. */
    nameBytes?: Uint8Array | undefined;
    kind: EntryKind;
    mode: Mode;
    /** The object's id, in hex. */
    hash: string;
  }

  /** An entry of a tree to be made. `nameBytes` beats `name`, `mode` beats `kind`, and a kind alone means its plain mode. */
  export type NewEntry =
    & { hash: string }
    & ({ name: string; nameBytes?: Uint8Array | undefined } | { name?: string; nameBytes: Uint8Array })
    & ({ mode: Mode; kind?: EntryKind } | { mode?: undefined; kind: EntryKind });

  /** An object that a run answered, or that the guest answers. */
  export interface Outcome {
    kind: Kind;
    hash: string;
  }

  /** A wish to run an image. */
  export interface Request {
    /** An image reference. */
    image: string;
    /** The id of an arguments tree. */
    args: string;
  }

  /** How one of many runs ended. */
  export type RunResult = (Outcome & { error?: undefined }) | { error: ManifoldError; kind?: undefined; hash?: undefined };

  /** What an operation throws. */
  export class ManifoldError extends Error {
    private constructor();
    /** What kind of error it is: `guest`, `request`, `limit`, `runtime`, `store` or `cancelled`. */
    readonly kind: string;
    /** The error and its causes, from the nearest frame to the first. */
    readonly chain: readonly string[];
  }

  /** Reads a tree, in git's order. */
  export function tree(hash: string): Promise<TreeEntry[]>;
  /** Reads a blob. */
  export function get(hash: string): Promise<Uint8Array>;
  /** Stores a blob, text as UTF-8, and answers its id. */
  export function putBlob(content: string | Uint8Array): Promise<string>;
  /** Stores a tree of entries in any order, and answers its id. */
  export function putTree(entries: Iterable<NewEntry>): Promise<string>;
  /** Runs an image, or remembers its outcome. Throws what the run says if it fails. */
  export function run(image: string, args: string): Promise<Outcome>;
  /** Runs many images, some at a time, and answers in their order. */
  export function runMany(requests: Iterable<Request>): Promise<RunResult[]>;
  /** Names the outcome, once. An entry that returns its outcome need not. */
  export function out(kind: Kind, hash: string): Promise<void>;
  /** Ends the job with the guest's own words. So does throwing an error. */
  export function fail(message: string): Promise<never>;
  /** Takes a line for the job's log. */
  export function log(message: string): void;
}

/** UTF-8 of text. */
declare class TextEncoder {
  readonly encoding: "utf-8";
  encode(text?: string): Uint8Array<ArrayBuffer>;
}

/** Text of UTF-8, and of nothing else. */
declare class TextDecoder {
  constructor(label?: "utf-8" | "utf8", options?: { fatal?: boolean; ignoreBOM?: boolean });
  readonly encoding: "utf-8";
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  decode(bytes?: ArrayBufferView): string;
}

/** Writes to the job's log, whatever the level. */
declare const console: Record<"debug" | "error" | "info" | "log" | "warn", (...values: unknown[]) => void>;

/** Calls a function once the running one is through. */
declare function queueMicrotask(callback: () => void): void;
