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
    const places = [...line.matchAll(WORD)].map(({ index }) => index);
    const at = places.find((at) => MARK.test(line.slice(0, at)));
    return at === undefined ? undefined : line.slice(at);
  })
);
