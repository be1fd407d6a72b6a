import { main } from "./sdk.ts";

let value = 0;

export default main(() => {
  value += 1;
  return String(value);
});
