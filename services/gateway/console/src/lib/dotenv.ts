// A `.env` as people paste it. Nothing is filled in ($NAME stays as it stands), and what cannot be
// read for sure is a problem of its line, never a guess. No message tells a value.

export interface Entry {
  name: string;
  value: string;
  line: number;
  /** The lines above that have the same name: the last one counts. */
  earlier: number[];
}

export interface Problem {
  line: number;
  /** The name on the line, if there is one. */
  name?: string;
  text: string;
}

const escaped: Record<string, string> = { n: "\n", r: "\r", t: "\t" };
// Any other backslash stays, as in a shell.
const unescape = (text: string) => text.replace(/\\([nrt"\\$`])/g, (_, c: string) => escaped[c] ?? c);

const quoted: Record<string, RegExp> = {
  '"': /"((?:\\[^]|[^"\\])*)"/y,
  "'": /'([^']*)'/y,
  "`": /`([^`]*)`/y,
};
const blank = /[^\S\n]*(?:#.*)?(?:\n|$)/y;
const begin = /[^\S\n]*(?:export[^\S\n]+)?([^=\n]*?)[^\S\n]*=(?:[^\S\n]*(?=["'`]))?/y;
const rest = /.*(?:\n|$)/y;

/** Reads a `.env`: one entry a name, in the order of the lines that count. */
export function parseDotenv(pasted: string): { entries: Entry[]; problems: Problem[] } {
  const text = pasted.replace(/^\ufeff/, "").replace(/\r\n?/g, "\n");
  const entries = new Map<string, Entry>();
  const problems: Problem[] = [];
  let at = 0;
  let line = 1;
  const take = (pattern: RegExp) => {
    pattern.lastIndex = at;
    const m = pattern.exec(text);
    if (m === null) return undefined;
    at = pattern.lastIndex;
    line += m[0].split("\n").length - 1;
    return m;
  };
  while (at < text.length) {
    if (take(blank) !== undefined) continue;
    const first = line;
    const name = take(begin)?.[1];
    if (name === undefined || name === "") {
      take(rest);
      problems.push({ line: first, text: name === undefined ? "Has no “=”. Write NAME=value." : "Has no name." });
      continue;
    }
    const read = value(text[at] ?? "", take);
    if ("problem" in read) {
      problems.push({ line: first, name, text: read.problem });
      continue;
    }
    const before = entries.get(name);
    entries.delete(name);
    const earlier = before === undefined ? [] : [...before.earlier, before.line];
    entries.set(name, { name, value: read.value, line: first, earlier });
  }
  return { entries: [...entries.values()], problems };
}

/** What follows the equals sign, to the end of its last line. */
function value(
  quote: string,
  take: (pattern: RegExp) => RegExpExecArray | undefined,
): { value: string } | { problem: string } {
  const closed = quoted[quote];
  if (closed === undefined) {
    // A comment begins after a space: the # of "#fff" and "a#b" belongs to the value.
    const plain = take(rest)?.[0] ?? "";
    return { value: plain.replace(/\s#.*/, "").trim() };
  }
  const inside = take(closed)?.[1];
  if (inside === undefined) {
    take(rest);
    return { problem: `The quote ${quote} that begins the value is not closed.` };
  }
  if (take(blank) === undefined) {
    take(rest);
    return { problem: `There is more after the closing quote ${quote}.` };
  }
  return { value: quote === '"' ? unescape(inside) : inside };
}
