import { main } from "./sdk.ts";

export default main(() => JSON.parse("not JSON"));
