// Text from git, logs and Bitbucket is a stranger's: it may colour itself, and nothing else. React
// escapes markup; here go the terminal's commands and what reorders text.

export interface Span {
  text: string;
  /** Classes such as "a31" (foreground red), "a42" (background green) or "ab" (bold). */
  classes: string;
}

// CSI … final byte; OSC and the other strings up to BEL, ST or what aborts them; two-character escapes.
// Each may be broken off.
const escapes =
  // eslint-disable-next-line no-control-regex
  /(?:\x1b\[|\x9b)([0-?]*)[ -/]*([@-~])?|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x18\x1a\x1b\x9c]*(?:[\x07\x18\x1a\x9c]|\x1b\\)?|\x1b[ -/]*[0-~]?/g;

// Controls other than tab; the marks, embeddings, overrides and isolates that reorder text; invisible
// separators that could end a line.
// eslint-disable-next-line no-control-regex
const hidden = /[\x00-\x08\x0a-\x1f\x7f-\x9f]|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]/g;

/** Shows what would act unseen: U+202E becomes "⟨U+202E⟩"; plain control characters go. */
export function safe(text: string): string {
  return text.replace(hidden, (c) => {
    const code = c.codePointAt(0) ?? 0;
    return code < 0xa0 ? "" : `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

/** The text as a person sees it: without escapes. Carriage returns show their last state. */
export function plain(text: string): string {
  return safe(lastState(text.replace(escapes, "")));
}

/** A progress bar rewrites its line with carriage returns: only what stands at the end is shown. */
function lastState(text: string): string {
  const trimmed = text.replace(/\r+$/, "");
  return trimmed.slice(trimmed.lastIndexOf("\r") + 1);
}

/** Splits a line into coloured spans. Unknown codes are dropped. */
export function ansi(text: string): Span[] {
  const source = lastState(text);
  const spans: Span[] = [];
  let fg = "";
  let bg = "";
  let bold = false;
  const push = (part: string) => {
    const shown = safe(part);
    if (shown === "") return;
    const classes = [fg, bg, bold ? "ab" : ""].filter((c) => c !== "").join(" ");
    const before = spans.at(-1);
    if (before?.classes === classes) before.text += shown;
    else spans.push({ text: shown, classes });
  };
  let at = 0;
  for (const m of source.matchAll(escapes)) {
    push(source.slice(at, m.index));
    at = m.index + m[0].length;
    if (m[2] !== "m") continue;
    const codes = (m[1] ?? "").split(/[;:]/).map((c) => (c === "" ? 0 : Number(c)));
    for (let i = 0; i < codes.length; i++) {
      const c = codes[i] ?? 0;
      if (c === 0) {
        fg = bg = "";
        bold = false;
      } else if (c === 1) bold = true;
      else if (c === 22) bold = false;
      else if ((c >= 30 && c <= 37) || (c >= 90 && c <= 97)) fg = `a${c}`;
      else if (c === 39) fg = "";
      else if ((c >= 40 && c <= 47) || (c >= 100 && c <= 107)) bg = `a${c}`;
      else if (c === 49) bg = "";
      else if (c === 38 || c === 48) i += codes[i + 1] === 5 ? 2 : 4; // 256 and true colours: left out
    }
  }
  push(source.slice(at));
  return spans;
}

// More of a first line is no subject: it would push all else out of sight.
const longestSubject = 160;

/** The first line of a commit's message, safe to show and not longer than a line or two. */
export function subject(message: string | undefined): string {
  const letters = Array.from(safe(((message ?? "").split("\n", 1)[0] ?? "").replace(escapes, "")).trim());
  return letters.length <= longestSubject ? letters.join("") : `${letters.slice(0, longestSubject).join("")}…`;
}

export function shortHash(hash: string | undefined): string {
  return (hash ?? "").slice(0, 7);
}

/** Initials of a name, two at most, by what a reader sees as one character. */
export function initials(name: string): string {
  const words = safe(name)
    .trim()
    .split(/[\s._-]+/)
    .filter((w) => w !== "");
  const chosen = words.length > 1 ? [words[0], words.at(-1)] : words.slice(0, 1);
  const first = chosen.map((w) => Array.from(w ?? "")[0] ?? "").join("");
  return first === "" ? "?" : first.toUpperCase();
}

/** A link is followed only to http and https. */
export function httpUrl(url: string | undefined): string | undefined {
  if (url === undefined || url === "") return undefined;
  try {
    const u = new URL(url);
    return u.protocol === "https:" || u.protocol === "http:" ? u.href : undefined;
  } catch {
    return undefined;
  }
}

/** An app id made of a repository's name: [a-z0-9][a-z0-9-]{0,62}. */
export function slug(name: string): string {
  return name
    .normalize("NFKD")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 63)
    .replace(/-+$/, "");
}

/** The page of a Bitbucket workspace where its OAuth consumers are; undefined for what is no workspace's id. */
export function consumersPage(site: string, workspace: string): string | undefined {
  const id = workspace.trim();
  const base = httpUrl(site);
  if (base === undefined || !/^[A-Za-z0-9_.-]{1,100}$/.test(id) || /^\.+$/.test(id)) return undefined;
  return new URL(`/${id}/workspace/settings/api`, base).href;
}

/** Tells a pattern of branches from the name of one: names have none of these characters. */
export function isPattern(branch: string): boolean {
  return /[*?[]/.test(branch);
}
