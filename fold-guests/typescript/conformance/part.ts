import { getRange, main, size } from "./sdk.ts";

export default main(async (job) => {
  const { hash } = job.required("in");
  const head = new TextEncoder().encode(`${await size(hash)}\n`);
  return new Uint8Array([...head, ...await getRange(hash, 1, 2)]);
});
