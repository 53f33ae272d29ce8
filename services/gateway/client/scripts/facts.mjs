// Takes out of the document what the client does by itself: which reasons a repeat can mend, and which
// calls a requestId makes harmless to repeat.
import { readFile, writeFile } from "node:fs/promises";

const doc = JSON.parse(await readFile(new URL("../../internal/openapi/openapi.json", import.meta.url), "utf8"));
const table = doc.components.schemas.Reason["x-reasons"];
const reasons = table.map((r) => r.reason);
const retries = table.filter((r) => r.retry !== "never").map((r) => [r.reason, r.retry]);
const repeatable = [];
for (const [path, item] of Object.entries(doc.paths)) {
  const id = item.post?.requestBody?.content?.["application/json"]?.schema?.properties?.requestId;
  if (id?.description?.startsWith("Makes a repeat of this request harmless")) repeatable.push(path);
}
if (repeatable.length === 0) throw new Error("the document knows no call that a requestId makes repeatable");

const text = `// Made by scripts/facts.mjs.
import type { components } from "./schema.js";

type Reason = components["schemas"]["Reason"];

/** How a repeat can help: after the time that the answer says, or after a growing pause. It cannot for other reasons. */
export const retries: ReadonlyMap<Reason, "after" | "backoff"> = new Map(${JSON.stringify(retries, null, 2)});

/** The POSTs that a requestId makes harmless to repeat. */
export const repeatable: ReadonlySet<string> = new Set(${JSON.stringify(repeatable, null, 2)});

/** Every reason there is. */
export const reasons: ReadonlySet<string> = new Set<Reason>(${JSON.stringify(reasons, null, 2)});
`;
// Others may be reading it: it is written where it changes.
const file = new URL("../src/facts.ts", import.meta.url);
if ((await readFile(file, "utf8").catch(() => "")) !== text) await writeFile(file, text);
