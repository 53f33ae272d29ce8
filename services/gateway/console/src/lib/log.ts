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

/** The first and the last of some lines, by their numbers. */
export interface Span {
  from: number;
  to: number;
}

/** What a span is kept under: a stage, or a hook in it. Names hold no line breaks. */
const place = (stage: string | undefined, hook?: string) => `${stage ?? ""}\n${hook ?? ""}`;

/**
 * The lines that were there at one moment. More may come behind them, and none of these changes, so
 * the list itself is shared with the buffer and nothing is copied.
 */
export class LogLines {
  readonly length: number;

  constructor(
    private readonly list: readonly LogRecord[],
    private readonly spans: ReadonlyMap<string, Span>,
  ) {
    this.length = list.length;
  }

  at(index: number): LogRecord | undefined {
    return index < this.length ? this.list[index] : undefined;
  }

  /** The number of the first line. */
  get first(): number {
    return this.at(0)?.line ?? 1;
  }

  /** The first and last line of a stage, or of a deployment hook in it; undefined while there is none. */
  span(stage: string | undefined, hook?: string): Span | undefined {
    return this.spans.get(place(stage, hook));
  }

  /** The last lines of a stage, or of a hook in it, or of all where that has none. */
  tail(most: number, stage: string | undefined, hook?: string): LogRecord[] {
    const span = this.span(stage, hook);
    const from = span === undefined ? 0 : span.from - this.first;
    const found: LogRecord[] = [];
    for (let i = span === undefined ? this.length - 1 : span.to - this.first; i >= from && found.length < most; i--) {
      const r = this.at(i);
      if (r === undefined) break;
      if (span === undefined || (r.stage === stage && (hook === undefined || r.hook === hook))) found.push(r);
    }
    return found.reverse();
  }
}

/**
 * LogBuffer merges what several connections deliver. Lines are numbered from 1 without gaps; a
 * reconnect asks for what comes after `last`, and what comes twice is dropped. A line that leaves a
 * gap is refused: the caller must ask again from `last`.
 */
export class LogBuffer {
  private readonly list: LogRecord[] = [];
  private readonly spans = new Map<string, Span>();

  constructor(private first = 1) {}

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
    this.extend(place(record.stage), record.line);
    if (record.hook !== undefined && record.hook !== "") this.extend(place(record.stage, record.hook), record.line);
    return "new";
  }

  private extend(at: string, line: number): void {
    const span = this.spans.get(at);
    if (span === undefined) this.spans.set(at, { from: line, to: line });
    else span.to = line;
  }

  /** The lines of now, which React sees as others than before. Costs the hooks that printed, not the lines. */
  snapshot(): LogLines {
    return new LogLines(this.list, new Map(Array.from(this.spans, ([at, span]) => [at, { ...span }])));
  }
}

/**
 * The places of the lines whose visible text holds a query, case ignored. Each line is looked at once
 * however often more come; another query is another search.
 */
export class LogSearch {
  /** The indexes of the lines that hold the query, rising; it only grows. */
  readonly hits: number[] = [];
  /** How many lines were looked at. */
  scanned = 0;
  private readonly wanted: string;

  constructor(
    query: string,
    private readonly visible: (text: string) => string,
  ) {
    this.wanted = query.trim().toLowerCase();
  }

  /** Looks at the next lines that it has not seen, this many at most, and says whether any are left. */
  scan(lines: LogLines, most: number): boolean {
    if (this.wanted === "") return false;
    const end = Math.min(lines.length, this.scanned + most);
    for (; this.scanned < end; this.scanned++) {
      const text = lines.at(this.scanned)?.text ?? "";
      if (this.visible(text).toLowerCase().includes(this.wanted)) this.hits.push(this.scanned);
    }
    return this.scanned < lines.length;
  }
}

/** Whether a rising list holds a number. */
export function holds(rising: readonly number[], wanted: number): boolean {
  let [from, to] = [0, rising.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if ((rising[middle] ?? 0) < wanted) from = middle + 1;
    else to = middle;
  }
  return rising[from] === wanted;
}

/** The lines of a fragment such as "#L12" or "#L12-L20", both ends among them. */
export function linesOf(hash: string): Span | undefined {
  const m = /^#L([1-9][0-9]{0,8})(?:-L([1-9][0-9]{0,8}))?$/.exec(hash);
  if (m?.[1] === undefined) return undefined;
  const from = Number(m[1]);
  const to = m[2] === undefined ? from : Number(m[2]);
  return to < from ? undefined : { from, to };
}

/** The fragment that names lines. */
export function fragment(lines: Span): string {
  return lines.from === lines.to ? `#L${lines.from}` : `#L${lines.from}-L${lines.to}`;
}
