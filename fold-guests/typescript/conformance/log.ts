import { log, main, object, text } from "./sdk.ts";

export default main(async (job) => {
  log(await text(job.required("in").hash));
  return object(job.required("in"));
});
