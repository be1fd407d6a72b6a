/**
 * A fold visitor that counts files: 1 for a blob, the sum of the children's results for a tree.
 *
 * @module
 */

import { main } from "./sdk.ts";
import { sum } from "./visitor.ts";

export default main((job) => sum(job, () => 1));
