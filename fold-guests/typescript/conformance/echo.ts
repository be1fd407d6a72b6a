import { main, object } from "./sdk.ts";

export default main((job) => object(job.required("in")));
