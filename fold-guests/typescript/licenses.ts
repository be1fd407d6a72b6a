/**
 * A fold visitor that counts files by their license: a tree of numbers.
 *
 * The license of a file is what its first `SPDX-License-Identifier` says, or else the first of some
 * common licenses whose text it contains or refers to, within its first 64 KiB. A file without
 * either is not counted.
 *
 * @module
 */

import { getRange, main } from "./sdk.ts";
import { isBinary, tally, trim } from "./visitor.ts";

const TAG = "SPDX-License-Identifier:";
const READ_BYTES = 64 << 10;
const LONGEST = 200;

/**
 * Licenses, and texts that all occur in a file under the license. A license comes before those whose
 * texts it contains as well.
 */
const TEXTS: [string, string[]][] = [
  ["AGPL-3.0", ["gnu affero general public license version 3"]],
  ["LGPL-3.0", ["gnu lesser general public license version 3"]],
  ["LGPL-2.1", ["gnu lesser general public license version 2.1"]],
  ["GPL-3.0", ["gnu general public license version 3"]],
  ["GPL-2.0", ["gnu general public license version 2"]],
  ["AGPL-3.0", ["gnu affero general public license", "either version 3 of the license"]],
  ["LGPL-3.0", ["gnu lesser general public license", "either version 3 of the license"]],
  ["LGPL-2.1", ["gnu lesser general public license", "either version 2.1 of the license"]],
  ["GPL-3.0", ["gnu general public license", "either version 3 of the license"]],
  ["GPL-2.0", ["gnu general public license", "either version 2 of the license"]],
  ["GPL-2.0", ["gnu general public license", "either version 2 or at your option"]],
  ["Apache-2.0", ["apache license version 2.0"]],
  ["MPL-2.0", ["mozilla public license version 2.0"]],
  ["MPL-2.0", ["mozilla public license v. 2.0"]],
  ["CC0-1.0", ["cc0 1.0 universal"]],
  ["Unlicense", ["this is free and unencumbered software released into the public domain"]],
  ["BSL-1.0", ["boost software license version 1.0"]],
  ["ISC", ["permission to use copy modify and or distribute this software for any purpose"]],
  ["ISC", ["permission to use copy modify and distribute this software for any purpose"]],
  ["MIT", ["permission is hereby granted free of charge to any person obtaining a copy"]],
  ["Zlib", ["the origin of this software must not be misrepresented"]],
  ["BSD-3-Clause", ["redistribution and use in source and binary forms", "neither the name"]],
  ["BSD-2-Clause", ["redistribution and use in source and binary forms"]],
];

export default main((job) =>
  tally(job, async (blob) => {
    const content = await getRange(blob.hash, 0, READ_BYTES);
    if (isBinary(content)) return undefined;
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(content);
    return tag(text) ?? license(text);
  })
);

/** Returns the license expression after the first tag that has one, of up to `LONGEST` bytes. */
function tag(text: string): string | undefined {
  for (const rest of text.split(TAG).slice(1)) {
    const part = /^[ \t]*([A-Za-z0-9 .+()-]*)/.exec(rest)![1]!;
    // What follows can be the end of a comment.
    const expression = trim(part, " .-");
    if (/^[(A-Za-z0-9]/.test(expression) && expression.length <= LONGEST) return expression;
  }
  return undefined;
}

/** Returns the license whose text or name is in `text`. */
function license(text: string): string | undefined {
  const words = text.replace(/[^A-Za-z0-9.]+/g, " ").toLowerCase();
  return TEXTS.find(([, texts]) => texts.every((text) => words.includes(text)))?.[0];
}
