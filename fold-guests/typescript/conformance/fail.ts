import { main, text } from "./sdk.ts";

export default main(async (job) => {
  throw new Error(await text(job.required("message").hash));
});
