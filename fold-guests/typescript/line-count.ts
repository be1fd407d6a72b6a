/** A fold visitor that counts the newline bytes of all blobs. @module */

import { get, main } from "./sdk.ts";
import { sum } from "./visitor.ts";

const NEWLINE = 0x0a;

export default main((job) =>
  sum(job, async (blob) => {
    const content = await get(blob.hash);
    let newlines = 0;
    for (let at = content.indexOf(NEWLINE); at >= 0; at = content.indexOf(NEWLINE, at + 1)) {
      newlines += 1;
    }
    return newlines;
  })
);
