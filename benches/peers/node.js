// Makes contexts as a frame has them, runs a little in each, and prints how long that took, in nanoseconds: `node node.js COUNT`.
"use strict";
const vm = require("node:vm");

const script = new vm.Script("const words = JSON.parse('[\"a\", \"b\"]'); words.map(word => word + '\\n').join('')");
const count = Number(process.argv[2]);
for (let warming = 0; warming < 20; warming++) script.runInContext(vm.createContext());
const start = process.hrtime.bigint();
for (let made = 0; made < count; made++) script.runInContext(vm.createContext());
console.log(String(process.hrtime.bigint() - start));
