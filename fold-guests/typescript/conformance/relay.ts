import { main, run, text } from "./sdk.ts";

export default main(async (job) => {
  return await run(await text(job.required("image").hash), job.required("in").hash);
});
