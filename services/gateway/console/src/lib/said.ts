// A sentence of the API has its times in UTC, in one form (pkg/when): "… since 2026-11-22 13:02 UTC.".
// Here they are found, so that a page shows one time zone, the reader's.

const stamped = /\b(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}(?::\d{2})?) UTC\b/g;

/** The parts of a sentence: its words, and the times between them (ISO 8601). */
export function parts(sentence: string): { text?: string; at?: string }[] {
  const found: { text?: string; at?: string }[] = [];
  let from = 0;
  for (const m of sentence.matchAll(stamped)) {
    const at = `${m[1] ?? ""}T${m[2] ?? ""}Z`;
    if (Number.isNaN(Date.parse(at))) continue; // no such day: it stays as it was said
    if (m.index > from) found.push({ text: sentence.slice(from, m.index) });
    found.push({ at });
    from = m.index + m[0].length;
  }
  if (from < sentence.length) found.push({ text: sentence.slice(from) });
  return found;
}

/** What a service says that somebody did, said to the one who did it: "You switched it off". */
export function toMe(sentence: string, me: string): string {
  if (me === "" || !sentence.includes(me)) return sentence;
  const name = me.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const did = new RegExp(
    `([.!?] )?(?<![\\p{L}\\p{N}])${name} (?=(?:switched|made|deployed|redeployed|rolled|cancelled) )`,
    "gu",
  );
  return sentence.replace(did, (_, end: string | undefined, at: number) =>
    end !== undefined || at === 0 ? `${end ?? ""}You ` : "you ",
  );
}
