import { main, text } from "./sdk.ts";

/** Returns the argument `in` in upper case. */
export default main(async (job) => (await text(job.required("in").hash)).toUpperCase());
