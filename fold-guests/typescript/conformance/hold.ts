import { main, run, text } from "./sdk.ts";

export default main(async (job) => {
  const memory = new Uint8Array(Number(await text(job.required("bytes").hash))).fill(1);
  const outcome = await run(await text(job.required("image").hash), job.required("in").hash);
  memory.fill(2);
  return outcome;
});
