// An app's variables: what the server takes, and what a pasted `.env` makes of them.
import type { AppPatch, Variable } from "../api/client";
import { parseDotenv, type Entry, type Problem } from "./dotenv";

export type VariableInput = NonNullable<AppPatch["variables"]>[number];

const namePattern = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;
const longestValue = 120 << 10; // bytes, as the server takes it

/** What is wrong with a name. */
export function nameProblem(name: string): string | undefined {
  if (!namePattern.test(name)) return "Letters, digits and underscores, 128 at most; not a digit first.";
  if (name.startsWith("DEVPILOT_")) return "Names that begin with DEVPILOT_ are Devpilot's own.";
  return undefined;
}

function entryProblem({ name, value }: Entry): string | undefined {
  if (value.includes("\0")) return "Has a NUL character, which no variable can hold.";
  if (new TextEncoder().encode(value).length > longestValue) return `Is longer than ${longestValue >> 10} KiB.`;
  return nameProblem(name);
}

/** A variable as it is. The value of a secret that is not sent stays. */
export const kept = (v: Variable): VariableInput =>
  v.secret
    ? { name: v.name, secret: true, ...where(v) }
    : { name: v.name, secret: false, value: v.value ?? "", ...where(v) };

/** The branches that a value is for, if it is not for all. */
const where = ({ branches }: { branches?: string }) => (branches === undefined || branches === "" ? {} : { branches });

/** What tells one value from another: a name may have one for all branches and one for each pattern of them. */
export const variableKey = (v: { name: string; branches?: string }) => `${v.name} ${v.branches ?? ""}`;

/** The name of a value for people. */
export const variableLabel = (v: { name: string; branches?: string }) =>
  v.branches === undefined || v.branches === "" ? v.name : `${v.name} of ${v.branches}`;

export interface Pasted extends Entry {
  /** What becomes of the app's variables. A stored secret stays where no value is pasted. */
  change: "new" | "replaces" | "stays";
  /** Whether it can be a secret or plain; otherwise why not, and what it is. */
  choice: "free" | "stored secret" | "empty";
}

/** What a pasted text would do to an app's variables. */
export function readPasted(text: string, there: readonly Variable[]): { rows: Pasted[]; problems: Problem[] } {
  const { entries, problems } = parseDotenv(text);
  const rows: Pasted[] = [];
  const forAll = there.filter((v) => (v.branches ?? "") === ""); // a pasted value is one for all branches
  for (const entry of entries) {
    const wrong = entryProblem(entry);
    if (wrong !== undefined) {
      problems.push({ line: entry.line, name: entry.name, text: wrong });
      continue;
    }
    const before = forAll.find((v) => v.name === entry.name);
    const secret = before?.secret === true;
    rows.push({
      ...entry,
      change: before === undefined ? "new" : secret && entry.value === "" ? "stays" : "replaces",
      choice: secret ? "stored secret" : entry.value === "" ? "empty" : "free",
    });
  }
  return { rows, problems: problems.toSorted((a, b) => a.line - b.line) };
}

/** Whether a row becomes a secret: yes, unless a person said otherwise or there is no value to hide. */
export const becomesSecret = (row: Pasted, plain: ReadonlySet<string>): boolean =>
  row.choice === "stored secret" || (row.choice === "free" && !plain.has(row.name));

/** All variables of the app once the rows are taken over: those that are there keep their places. */
export function withPasted(
  there: readonly Variable[],
  rows: readonly Pasted[],
  plain: ReadonlySet<string>,
): VariableInput[] {
  const made = new Map(
    rows
      .filter((r) => r.change !== "stays")
      .map((r) => [r.name, { name: r.name, secret: becomesSecret(r, plain), value: r.value }]),
  );
  return [
    ...there.map((v) => ((v.branches ?? "") === "" ? made.get(v.name) : undefined) ?? kept(v)),
    ...[...made.values()].filter((m) => !there.some((v) => variableKey(v) === variableKey(m))),
  ];
}
