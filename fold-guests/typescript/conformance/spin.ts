import { main } from "./sdk.ts";

// `main` has read the arguments.
export default main(() => {
  for (;;);
});
