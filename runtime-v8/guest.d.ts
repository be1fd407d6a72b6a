// The environment of a TypeScript or JavaScript guest of Manifold, for editors and compilers.
/// <reference lib="es2024" />

/**
 * The operations of a guest. A guest's module exports its entry as the default:
 * `(job: Job) => IntoOutcome`.
 */
declare module "manifold:guest" {
  /** The request that is being run. The entry's only argument. */
  export interface Job {
    /** The id of the arguments tree. */
    readonly args: string;
    /** The id of the tree of named images, or an empty string if there is none. */
    readonly std: string;
    /** The request's salt. */
    readonly salt: string;
    /** The running image. A recursive guest runs itself by it. */
    readonly image: string;
  }

  /** The kind of an outcome's object. */
  export type Kind = "blob" | "tree";

  /** The kind of a tree entry. A commit is a submodule's, and belongs to another repository. */
  export type EntryKind = Kind | "commit";

  /** Git's modes: a directory, a file, an executable file, a symbolic link, a submodule. */
  export type Mode = "40000" | "100644" | "100755" | "120000" | "160000";

  /** An entry of a tree. */
  export interface TreeEntry {
    /** The name. Escaped, and only for display, if the name is not UTF-8. */
    name: string;
    /** The bytes of the name, if it is not UTF-8. */
    nameBytes?: Uint8Array | undefined;
    kind: EntryKind;
    mode: Mode;
    /** The object's id, in hex. */
    hash: string;
  }

  /**
   * An entry of a tree to store. `nameBytes` takes precedence over `name`, and `mode` over `kind`.
   * `kind` without `mode` means the kind's plain mode.
   */
  export type NewEntry =
    & { hash: string }
    & (
      | { name: string; nameBytes?: Uint8Array | undefined }
      | { name?: string; nameBytes: Uint8Array }
    )
    & ({ mode: Mode; kind?: EntryKind } | { mode?: undefined; kind: EntryKind });

  /** The object that a run produced. */
  export interface Outcome {
    kind: Kind;
    hash: string;
  }

  /** A run of an image, as `runMany` takes it. */
  export interface Request {
    /** An image reference. */
    image: string;
    /** The id of an arguments tree. */
    args: string;
  }

  /** The result of one of many runs. */
  export type RunResult =
    | (Outcome & { error?: undefined })
    | { error: ManifoldError; kind?: undefined; hash?: undefined };

  /** The error that operations throw. */
  export class ManifoldError extends Error {
    private constructor();
    /** The kind of error: `guest`, `request`, `limit`, `runtime`, `store` or `cancelled`. */
    readonly kind: string;
    /** The error and its causes, from the nearest frame to the first. */
    readonly chain: readonly string[];
  }

  /** Reads a tree. Its entries are in git's order. */
  export function tree(hash: string): Promise<TreeEntry[]>;
  /** Reads a blob. */
  export function get(hash: string): Promise<Uint8Array>;
  /** Reads at most `length` bytes of a blob from `offset` on: fewer at its end. */
  export function getRange(hash: string, offset: number, length: number): Promise<Uint8Array>;
  /** Returns the size of a blob in bytes, without reading it. */
  export function size(hash: string): Promise<number>;
  /** Stores a blob and returns its id. Text is stored as UTF-8. */
  export function putBlob(content: string | Uint8Array): Promise<string>;
  /** Stores a tree of entries, in any order, and returns its id. */
  export function putTree(entries: Iterable<NewEntry>): Promise<string>;
  /** Returns the outcome of an image, from the memo or by running it. Throws if the run fails. */
  export function run(image: string, args: string): Promise<Outcome>;
  /** Runs many images, several at a time. The results are in the order of the requests. */
  export function runMany(requests: Iterable<Request>): Promise<RunResult[]>;
  /** Sets the outcome; may be called once. Not needed if the entry returns its outcome. */
  export function out(kind: Kind, hash: string): Promise<void>;
  /** Ends the job with an error message, as throwing an error does. */
  export function fail(message: string): Promise<never>;
  /** Writes a line to the job's log. */
  export function log(message: string): void;
}

// The globals below are declared such that they merge with the declarations of a browser's globals,
// `lib.dom.d.ts`, which a compiler includes by default. A guest has only what is declared here.

/** Encodes text as UTF-8. */
interface TextEncoder {
  readonly encoding: "utf-8";
  encode(input?: string): Uint8Array<ArrayBuffer>;
}

declare var TextEncoder: {
  prototype: TextEncoder;
  new(): TextEncoder;
};

/** Decodes UTF-8. No other encoding is supported. */
interface TextDecoder {
  readonly encoding: "utf-8";
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  decode(input?: ArrayBufferView): string;
}

/** The options of a `TextDecoder`. */
interface TextDecoderOptions {
  /** Whether `decode` throws if the bytes are not valid UTF-8. */
  fatal?: boolean;
  /** Whether a byte order mark at the beginning is kept. By default it is removed. */
  ignoreBOM?: boolean;
}

declare var TextDecoder: {
  prototype: TextDecoder;
  /** Throws a `RangeError` if `label` names an encoding other than UTF-8. */
  new(label?: string, options?: TextDecoderOptions): TextDecoder;
};

/** Writes to the job's log, at every level. */
interface Console {
  debug(...data: unknown[]): void;
  error(...data: unknown[]): void;
  info(...data: unknown[]): void;
  log(...data: unknown[]): void;
  warn(...data: unknown[]): void;
}

declare var console: Console;

/** Calls a function after the current one has returned. */
declare function queueMicrotask(callback: () => void): void;
