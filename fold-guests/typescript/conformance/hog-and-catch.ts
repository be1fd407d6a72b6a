import { main } from "./sdk.ts";

export default main(() => {
  let hoard: Uint8Array[] = [];
  try {
    for (;;) hoard.push(new Uint8Array(1 << 20).fill(1));
  } catch {
    hoard = [];
    return "caught";
  }
});
