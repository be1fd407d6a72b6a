import { main, named, object, putTree, runAll, text, tree } from "./sdk.ts";

export default main(async (job) => {
  const image = await text(job.required("image").hash);
  const entries = await tree(job.required("in").hash);
  const requests = await Promise.all(entries.map(async (entry) => ({
    image,
    args: await putTree([named(object(entry), "in")]),
  })));
  const outcomes = await runAll(requests);
  return outcomes.map((outcome, index) => named(outcome, entries[index]!));
});
