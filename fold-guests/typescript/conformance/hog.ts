import { main } from "./sdk.ts";

export default main(() => {
  const hoard: number[][] = [];
  for (;;) hoard.push(new Array(1 << 15).fill(hoard.length + 0.5));
});
