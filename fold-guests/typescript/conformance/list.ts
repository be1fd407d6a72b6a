import { main, tree } from "./sdk.ts";

export default main(async (job) => {
  const entries = await tree(job.required("in").hash);
  return entries.map((entry) => `${entry.name}\n`).join("");
});
