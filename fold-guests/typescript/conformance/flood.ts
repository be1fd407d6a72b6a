import { main, text } from "./sdk.ts";

export default main(async (job) => {
  const bytes = await text(job.required("bytes").hash);
  if (!/^\d+$/.test(bytes)) throw new Error(`the argument \`bytes\` is not a number: ${bytes}`);
  return new Uint8Array(Number(bytes));
});
