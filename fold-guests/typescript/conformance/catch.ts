import { main, run, text } from "./sdk.ts";

export default main(async (job) => {
  try {
    return await run(await text(job.required("image").hash), job.required("in").hash);
  } catch {
    return "caught";
  }
});
