// Reads paths from standard input, one per line, and prints for each whether the file is a module:
// "yes" or "no". JavaScript is parsed by node, TypeScript by the TypeScript compiler. Run with
// --experimental-vm-modules in a directory whose `node_modules` contains `typescript`.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { SourceTextModule } from "node:vm";

const ts = createRequire(process.cwd() + "/")("typescript");

for (const path of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const text = readFileSync(path, "utf8");
  let verdict = "yes";
  if (/\.m?ts$/.test(path)) {
    const problems = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, false, ts.ScriptKind.TS).parseDiagnostics;
    if (problems.length > 0) verdict = "no";
  } else {
    try {
      new SourceTextModule(text, { identifier: path });
    } catch (error) {
      verdict = "no";
    }
  }
  console.log(verdict);
}
