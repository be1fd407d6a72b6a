import { get, main, named, putBlob } from "./sdk.ts";

export default main(async (job) => {
  const content = await get(job.required("in").hash);
  const twice = new Uint8Array(2 * content.length);
  twice.set(content);
  twice.set(content, content.length);
  const stored = await get(await putBlob(twice));
  return [named({ kind: "blob", hash: await putBlob(stored) }, "twice")];
});
