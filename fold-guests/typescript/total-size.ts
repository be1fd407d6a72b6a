/** A fold visitor that adds up the sizes of all blobs in bytes. @module */

import { main, size } from "./sdk.ts";
import { sum } from "./visitor.ts";

export default main((job) => sum(job, (blob) => size(blob.hash)));
