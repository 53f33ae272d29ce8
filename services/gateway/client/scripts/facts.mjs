// Takes out of the document what the client does by itself: which reasons a repeat can mend, and which
// calls a requestId makes harmless to repeat.
import { readFile, writeFile } from "node:fs/promises";

const doc = JSON.parse(await readFile(new URL("../../internal/openapi/openapi.json", import.meta.url), "utf8"));
const retries = Object.fromEntries(doc.components.schemas.Reason["x-reasons"].map((r) => [r.reason, r.retry]));
const repeatable = [];
for (const [path, item] of Object.entries(doc.paths)) {
  const id = item.post?.requestBody?.content?.["application/json"]?.schema?.properties?.requestId;
  if (id?.description?.startsWith("Makes a repeat of this request harmless")) repeatable.push(path);
}
if (repeatable.length === 0) throw new Error("the document knows no call that a requestId makes repeatable");

await writeFile(
  new URL("../src/facts.ts", import.meta.url),
  `// Made by scripts/facts.mjs.
import type { components } from "./schema.js";

/** Whether a repeat can help: never, after the time that the answer says, or after a growing pause. */
export const retries: Record<components["schemas"]["Reason"], "never" | "after" | "backoff"> = ${JSON.stringify(retries, null, 2)};

/** The POSTs that a requestId makes harmless to repeat. */
export const repeatable: ReadonlySet<string> = new Set(${JSON.stringify(repeatable, null, 2)});
`,
);
