// A draft and what it is a draft of, which others may change meanwhile.

export function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/**
 * Brings a draft up to what is there now, field by field: what its writer did not touch follows, what both made the
 * same is agreed, and where they differ the draft stays and its base with it, which tells that the two differ.
 */
export function merged<T>(base: T, draft: T, there: T): { base: T; draft: T } {
  if (!isRecord(base) || !isRecord(draft) || !isRecord(there)) return whole(base, draft, there);
  const fields = Object.keys({ ...base, ...draft, ...there });
  const each = fields.map((f) => [f, whole<unknown>(base[f], draft[f], there[f])] as const);
  return {
    base: Object.fromEntries(each.map(([f, one]) => [f, one.base])) as T,
    draft: Object.fromEntries(each.map(([f, one]) => [f, one.draft])) as T,
  };
}

function whole<T>(base: T, draft: T, there: T): { base: T; draft: T } {
  if (same(draft, base) || same(draft, there)) return { base: there, draft: there };
  return { base, draft };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
