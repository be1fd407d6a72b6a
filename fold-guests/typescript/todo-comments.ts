/**
 * A fold visitor that lists what comments leave to do: the lines with one of the words `TODO`,
 * `FIXME`, `XXX` and `HACK` after something that starts a comment in a common language.
 *
 * @module
 */

import { main } from "./sdk.ts";
import { findings } from "./visitor.ts";

const WORD = /(?<![A-Za-z0-9_])(?:TODO|FIXME|XXX|HACK)(?![A-Za-z0-9_])/g;
/** What starts a comment. Lines of block comments often start with a star. */
const MARK = /\/\/|#|\/\*|<!--|--|;|%|^[ \t\n\f\r]*\*/;

export default main((job) =>
  findings(job, (line) => {
    const mark = MARK.exec(line);
    if (mark === null) return undefined;
    WORD.lastIndex = mark.index + mark[0].length;
    const word = WORD.exec(line);
    return word === null ? undefined : line.slice(word.index);
  })
);
