// The lines of a log as they arrive: in order, each once, whatever the connection does.

export interface LogRecord {
  line: number;
  time?: string;
  stage?: string;
  stream?: string;
  text: string;
  /** The deployment hook that printed it. */
  hook?: string;
}

/**
 * LogBuffer merges what several connections deliver. Lines are numbered from 1 without gaps; a
 * reconnect asks for what comes after `last`, and what comes twice is dropped. A line that leaves a
 * gap is refused: the caller must ask again from `last`.
 */
export class LogBuffer {
  private list: LogRecord[] = [];

  constructor(private first = 1) {}

  get records(): readonly LogRecord[] {
    return this.list;
  }

  /** The last line that is here; from there a reader resumes. */
  get last(): number {
    return this.first + this.list.length - 1;
  }

  /** Takes a record and says whether it was "new", "known" already, or leaves a "gap". */
  add(record: LogRecord): "new" | "known" | "gap" {
    if (!Number.isInteger(record.line) || record.line < 1) return "known";
    if (record.line <= this.last) return "known";
    if (record.line > this.last + 1) {
      // Old logs may have lost their beginning to retention: the first line that comes is the first.
      if (this.list.length > 0) return "gap";
      this.first = record.line;
    }
    this.list.push(record);
    return "new";
  }

  /** A copy that React sees as another one; the lines are shared. */
  snapshot(): readonly LogRecord[] {
    return this.list.slice();
  }
}

/** The indexes of the records whose visible text holds the query, case ignored. */
export function search(records: readonly LogRecord[], query: string, visible: (text: string) => string): number[] {
  const q = query.trim().toLowerCase();
  if (q === "") return [];
  const hits: number[] = [];
  records.forEach((r, i) => {
    if (visible(r.text).toLowerCase().includes(q)) hits.push(i);
  });
  return hits;
}

/** The lines of a fragment such as "#L12" or "#L12-L20", both ends among them. */
export function linesOf(hash: string): { from: number; to: number } | undefined {
  const m = /^#L([1-9][0-9]{0,8})(?:-L([1-9][0-9]{0,8}))?$/.exec(hash);
  if (m?.[1] === undefined) return undefined;
  const from = Number(m[1]);
  const to = m[2] === undefined ? from : Number(m[2]);
  return to < from ? undefined : { from, to };
}

/** The first and last line that a deployment hook printed in a stage; undefined while there is none. */
export function hookLines(
  records: readonly LogRecord[],
  stage: string,
  hook: string,
): { from: number; to: number } | undefined {
  const own = records.filter((r) => r.hook === hook && r.stage === stage);
  const first = own[0];
  const last = own.at(-1);
  return first === undefined || last === undefined ? undefined : { from: first.line, to: last.line };
}

/** The fragment that names lines. */
export function fragment(lines: { from: number; to: number }): string {
  return lines.from === lines.to ? `#L${lines.from}` : `#L${lines.from}-L${lines.to}`;
}
