/** A fold visitor: the bytes of all blobs. @module */

import { get, main } from "./sdk.ts";
import { sum } from "./visitor.ts";

export default main((job) => sum(job, async (blob) => (await get(blob.hash)).length));
