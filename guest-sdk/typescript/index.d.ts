// `npm pack` copies `guest.d.ts`, which declares the module `manifold:guest`, from `runtime-v8`.
/// <reference path="./guest.d.ts" />

export * from "./sdk.ts";
