import { main, named, putBlob, putTree, run, text } from "./sdk.ts";

export default main(async (job) => {
  const depth = await text(job.required("depth").hash);
  if (!/^\d+$/.test(depth)) throw new Error(`the argument \`depth\` is not a number: ${depth}`);
  if (depth === "0") return "0";
  const hash = await putBlob(String(Number(depth) - 1));
  return await run(job.image, await putTree([named({ kind: "blob", hash }, "depth")]));
});
