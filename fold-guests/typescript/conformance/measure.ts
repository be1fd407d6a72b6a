import { get, main } from "./sdk.ts";

export default main(async (job) => String((await get(job.required("in").hash)).length));
