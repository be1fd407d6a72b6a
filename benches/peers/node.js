// `node node.js COUNT`: creates COUNT contexts, runs a small script in each, and prints the elapsed
// time in nanoseconds.
"use strict";
const vm = require("node:vm");

const script = new vm.Script("const words = JSON.parse('[\"a\", \"b\"]'); words.map(word => word + '\\n').join('')");
const count = Number(process.argv[2]);
for (let warming = 0; warming < 20; warming++) script.runInContext(vm.createContext());
const start = process.hrtime.bigint();
for (let made = 0; made < count; made++) script.runInContext(vm.createContext());
console.log(String(process.hrtime.bigint() - start));
