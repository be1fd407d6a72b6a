/** A fold visitor: 1 for a blob, the sum of the children for a tree. @module */

import { main } from "./sdk.ts";
import { sum } from "./visitor.ts";

export default main((job) => sum(job, () => 1));
