// Patterns of branches, as the service matches them (doublestar): the branches to choose from are
// narrowed here, as one reads. The service has the last word on what is chosen.

/** What every name that a pattern matches begins with, as far as that is plain: what to search for. */
export function patternPrefix(pattern: string): string {
  return pattern.slice(0, pattern.search(/[*?[{\\]|$/));
}

/** Tells which names a pattern matches. Case matters; one that is not valid matches nothing. */
export function matcher(pattern: string): (name: string) => boolean {
  try {
    const expression = new RegExp(`^${translate(pattern)}$`, "u");
    return (name) => expression.test(name);
  } catch {
    return () => false;
  }
}

const literal = (text: string) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");

// What each piece of a pattern means. "**" between slashes stands for any number of parts, also none;
// everything else stays within a part. What is not closed makes no expression, and so no match.
const pieces: [RegExp, (m: RegExpExecArray) => string][] = [
  [/(?<=^|\/)\*\*\//y, () => "(?:.*\\/)?"],
  [/(?<=^|\/)\*\*$/y, () => ".*"],
  [/\/\*\*$/y, () => "(?:\\/.*)?"],
  [/\*(?!\*)/y, () => "[^/]*"],
  [/\?/y, () => "[^/]"],
  [
    /\[([!^]?)((?:\\.|[^\]\\])+)\]/uy,
    (m) =>
      `(?!\\/)[${m[1] === "" ? "" : "^"}${(m[2] ?? "").replace(/\\?(.)/gsu, (all, c: string) => (all === "-" ? "-" : literal(c)))}]`,
  ],
  [/\{/y, () => "(?:"],
  [/\}/y, () => ")"],
  [/\\(.)/uy, (m) => literal(m[1] ?? "")],
  [/[^*[\\]/uy, (m) => literal(m[0])],
];

function translate(pattern: string): string {
  let out = "";
  let open = false;
  for (let at = 0; at < pattern.length;) {
    let length = 0;
    for (const [piece, meaning] of pieces) {
      piece.lastIndex = at;
      const m = piece.exec(pattern);
      if (m === null) continue;
      length = m[0].length;
      if (m[0] === "{") open = true;
      if (m[0] === "}") open = false;
      out += m[0] === "," && open ? "|" : meaning(m);
      break;
    }
    if (length === 0) throw new SyntaxError(`no pattern: ${pattern}`);
    at += length;
  }
  return out;
}

/** When each branch was deployed last, and as which deployment, of a list that is newest first. */
export function lastDeployed<
  D extends { branch?: string | undefined; tag?: string | undefined; number: number; createTime?: string | undefined },
>(deployments: readonly D[]): Map<string, D> {
  const last = new Map<string, D>();
  for (const d of deployments) {
    if (d.tag === undefined && d.branch !== undefined && !last.has(d.branch)) last.set(d.branch, d);
  }
  return last;
}

/** Branches that were deployed come first with the deployment's number, the last one at the top; the others stay in their order. */
export function deployedFirst<B extends { name: string }>(
  branches: readonly B[],
  last: ReadonlyMap<string, { number: number }>,
): (B & { deployed: number })[] {
  return branches
    .map((b) => ({ ...b, deployed: last.get(b.name)?.number ?? 0 }))
    .toSorted((a, b) => b.deployed - a.deployed); // sorting is stable
}
