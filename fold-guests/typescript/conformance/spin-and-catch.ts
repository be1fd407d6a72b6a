import { main } from "./sdk.ts";

// `main` has read the arguments.
export default main(async () => {
  const spin = async () => {
    try {
      for (;;);
    } finally {
      return "caught";
    }
  };
  return await spin().catch(() => "caught");
});
