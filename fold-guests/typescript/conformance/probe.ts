import { main } from "./sdk.ts";

// Expressions rather than names, because some of these may not exist.
const PROBES: Record<string, () => unknown> = {
  now: () => Date.now(),
  date: () => String(new Date()),
  zone: () => new Date(0).toString(),
  offset: () => new Date().getTimezoneOffset(),
  random: () => Math.random(),
  globals: () => Object.getOwnPropertyNames(globalThis),
  locale: () => new Intl.DateTimeFormat().resolvedOptions(),
  sorted: () => ["ä", "z", "a"].sort((a, b) => a.localeCompare(b)),
  stack: () => new Error("a stack").stack,
  keys: () => Object.keys({ zebra: 1, 2: 1, apple: 1, 1: 1 }),
  "a function": () => String(main),
  "an error": () => JSON.parse("{"),
  "a missing global": () => Reflect.get(globalThis, "Deno"),
  collected: () => {
    const registry = Reflect.get(globalThis, "FinalizationRegistry");
    return [typeof registry, typeof Reflect.get(globalThis, "WeakRef")];
  },
  shared: () => typeof Reflect.get(globalThis, "SharedArrayBuffer"),
  performance: () => typeof Reflect.get(globalThis, "performance"),
};

export default main(() => {
  const found = Object.entries(PROBES).map(([name, probe]) => {
    try {
      return `${name}: ${JSON.stringify(probe())}`;
    } catch (error) {
      return `${name}: ${error}`;
    }
  });
  return found.join("\n");
});
