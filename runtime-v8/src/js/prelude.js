// The globals of every guest, and the module `manifold:guest`. Runs once, to make the snapshot from
// which all contexts are created. `native` holds the host's functions.
(function (native) {
  "use strict";
  const global = globalThis;
  const { defineProperty, getOwnPropertyDescriptor, freeze } = Object;
  const { apply, construct, deleteProperty } = Reflect;
  const { op, log: nativeLog, encode, decode } = native;

  // Replaces a constructor of the language. Guests cannot reach the original afterwards.
  function takePlaceOf(native, constructor) {
    for (const key of Reflect.ownKeys(native)) {
      defineProperty(constructor, key, getOwnPropertyDescriptor(native, key));
    }
    defineProperty(native.prototype, "constructor", { value: constructor, writable: true, configurable: true });
    defineProperty(global, native.name, { value: constructor, writable: true, configurable: true });
  }

  // -- Globals that are not available -----------------------------------------------------------

  // Their results depend on the garbage collector, on threads or on time. The objects of `Intl`
  // hold memory outside the heap, which no limit covers. V8 extends some of them whenever it
  // creates globals, and requires them to exist, so they are deleted when a guest begins.
  const ABSENT = [
    "WeakRef", "FinalizationRegistry", "SharedArrayBuffer", "Atomics", "Temporal", "WebAssembly", "Intl",
  ];
  function begin() {
    for (const name of ABSENT) deleteProperty(global, name);
    deleteProperty(NativeDate.prototype, "toTemporalInstant");
  }

  // The methods of those that are in the snapshot (V8 adds SharedArrayBuffer, Temporal and
  // WebAssembly later) are deleted here, so that no context contains them. V8 requires the
  // constructors.
  function strip(holder) {
    for (const key of Reflect.ownKeys(holder ?? {})) {
      const { value } = getOwnPropertyDescriptor(holder, key);
      if (typeof value === "function" && value.prototype && key !== "constructor") {
        strip(value);
        strip(value.prototype);
      } else {
        deleteProperty(holder, key);
      }
    }
  }
  for (const name of ABSENT) {
    strip(global[name]);
    strip(global[name]?.prototype);
  }

  // V8 ends the process if a split has more pieces than the maximum length of an array.
  const MOST_PIECES = 2 ** 27 - 16;
  const nativeSplit = String.prototype.split;
  const { split } = {
    split(separator, limit) {
      return apply(nativeSplit, this, [separator, limit === undefined ? MOST_PIECES : limit]);
    },
  };
  defineProperty(String.prototype, "split", { value: split, writable: true, configurable: true });

  // V8 allocates the memory of resizable buffers itself, where no limit covers it.
  const NativeBuffer = ArrayBuffer;
  function FixedBuffer(length, options) {
    if (new.target === undefined) throw new TypeError("Constructor ArrayBuffer requires 'new'");
    if (options?.maxByteLength !== undefined) {
      throw new RangeError("resizable array buffers are not available");
    }
    return construct(NativeBuffer, [length], new.target);
  }
  takePlaceOf(NativeBuffer, FixedBuffer);

  // -- The clock is fixed at 0 ------------------------------------------------------------------

  const NativeDate = Date;
  const dateToString = NativeDate.prototype.toString;
  const EPOCH = new NativeDate(0);
  function StandingDate(...parts) {
    if (new.target === undefined) return apply(dateToString, EPOCH, []);
    return construct(NativeDate, parts.length === 0 ? [0] : parts, new.target);
  }
  takePlaceOf(NativeDate, StandingDate);
  const now = { now() { return 0; } }.now;
  defineProperty(StandingDate, "now", { value: now, writable: true, configurable: true });

  // -- Common globals that are not part of the language -----------------------------------------

  function hidden(name, value) {
    defineProperty(global, name, { value, writable: true, enumerable: false, configurable: true });
  }

  hidden("TextEncoder", class TextEncoder {
    get encoding() {
      return "utf-8";
    }
    encode(text = "") {
      return encode(`${text}`);
    }
  });

  hidden("TextDecoder", class TextDecoder {
    #fatal;
    #ignoreBOM;
    constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
      if (!["utf-8", "utf8", "unicode-1-1-utf-8"].includes(`${label}`.trim().toLowerCase())) {
        throw new RangeError(`the encoding ${label} is not supported; only utf-8 is`);
      }
      this.#fatal = !!fatal;
      this.#ignoreBOM = !!ignoreBOM;
    }
    get encoding() {
      return "utf-8";
    }
    get fatal() {
      return this.#fatal;
    }
    get ignoreBOM() {
      return this.#ignoreBOM;
    }
    decode(bytes = new Uint8Array(0)) {
      const text = decode(bytes, this.#fatal);
      return !this.#ignoreBOM && text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
    }
  });

  function describe(value) {
    if (typeof value === "string") return value;
    if (value instanceof Error) return `${value.stack ?? value}`;
    if (typeof value === "object" && value !== null) {
      try {
        return JSON.stringify(value) ?? `${value}`;
      } catch {
        return Object.prototype.toString.call(value);
      }
    }
    return String(value);
  }
  function print(...values) {
    nativeLog(values.map(describe).join(" "));
  }
  const console = {};
  for (const level of ["debug", "error", "info", "log", "warn"]) {
    console[level] = { [level](...values) { print(...values); } }[level];
  }
  hidden("console", console);

  // -- The module `manifold:guest` --------------------------------------------------------------

  class ManifoldError extends Error {
    // The message of a nested run's failure.
    #said;
    constructor([message, kind, chain], nested) {
      super(message);
      this.kind = kind;
      this.chain = chain;
      if (nested) this.#said = message;
    }
    // Whether the error is a nested run's failure with an unchanged message.
    static passedOn(error) {
      return typeof error === "object" && error !== null && #said in error && error.message === error.#said;
    }
  }
  const { passedOn } = ManifoldError;
  delete ManifoldError.passedOn;
  defineProperty(ManifoldError.prototype, "name", { value: "ManifoldError", writable: true, configurable: true });

  const TREE = 0, GET = 1, PUT_BLOB = 2, PUT_TREE = 3, RUN = 4, RUN_MANY = 5, OUT = 6, FAIL = 7;
  const SIZE = 8, GET_RANGE = 9;

  async function ask(operation, first, second, third) {
    try {
      return await op(operation, first, second, third);
    } catch (failure) {
      throw new ManifoldError(failure, operation === RUN);
    }
  }

  const operations = {
    async tree(hash) {
      const flat = await ask(TREE, hash);
      const entries = [];
      for (let at = 0; at < flat.length; at += 5) {
        const entry = { name: flat[at], kind: flat[at + 2], hash: flat[at + 3], mode: flat[at + 4] };
        if (flat[at + 1] !== undefined) entry.nameBytes = flat[at + 1];
        entries[at / 5] = entry;
      }
      return entries;
    },
    async get(hash) {
      return await ask(GET, hash);
    },
    async getRange(hash, offset, length) {
      return await ask(GET_RANGE, hash, offset, length);
    },
    async size(hash) {
      return await ask(SIZE, hash);
    },
    async putBlob(content) {
      return await ask(PUT_BLOB, content);
    },
    async putTree(entries) {
      const flat = [];
      for (const { name, nameBytes, kind, mode, hash } of entries) {
        flat.push(nameBytes ?? name, mode, kind, hash);
      }
      return await ask(PUT_TREE, flat);
    },
    async run(image, args) {
      const [kind, hash] = await ask(RUN, image, args);
      return { kind, hash };
    },
    async runMany(requests) {
      const flat = [];
      for (const { image, args } of requests) flat.push(image, args);
      const results = await ask(RUN_MANY, flat);
      return results.map(([kind, hash, error]) =>
        error === undefined ? { kind, hash } : { error: new ManifoldError(error, true) }
      );
    },
    async out(kind, hash) {
      await ask(OUT, kind, hash);
    },
    async fail(message) {
      await ask(FAIL, `${message}`);
    },
    log(message) {
      nativeLog(`${message}`);
    },
  };

  // Makes the entry's return value the outcome.
  async function conclude(result) {
    if (result === undefined) return;
    let outcome = result;
    if (typeof result === "string" || result instanceof Uint8Array) {
      outcome = { kind: "blob", hash: await operations.putBlob(result) };
    } else if (Array.isArray(result)) {
      outcome = { kind: "tree", hash: await operations.putTree(result) };
    } else if (typeof result !== "object" || result === null || typeof result.hash !== "string") {
      throw new TypeError(
        "the entry must return text or bytes (a blob), an array of entries (a tree), an "
          + "outcome with `kind` and `hash`, or nothing after `out`",
      );
    }
    await operations.out(outcome.kind, outcome.hash);
  }

  async function start(evaluated, namespace, args, std, salt, image) {
    try {
      await evaluated;
      const entry = namespace.default;
      if (typeof entry !== "function") {
        throw new TypeError("the module has no default export that is a function (the entry)");
      }
      await conclude(await entry(freeze({ args, std, salt, image })));
    } catch (error) {
      throw passedOn(error) ? error.message : error;
    }
  }

  return { begin, start, exports: { ...operations, ManifoldError } };
})
