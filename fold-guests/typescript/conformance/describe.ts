import { main } from "./sdk.ts";

export default main((job) => `${job.image}\n${job.salt}\n${job.std}`);
