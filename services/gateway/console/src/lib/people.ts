import type { ApiKeyScope, Role } from "../api/client";

/** What people call the roles. */
export const roleWords: Record<Role, string> = { MEMBER: "Member", ADMIN: "Admin", OWNER: "Owner" };

/** What people call the scopes of API keys, and what these let a program do. */
export const scopeWords: Record<ApiKeyScope, { name: string; may: string }> = {
  READ: { name: "Read", may: "what members see: apps, deployments, logs" },
  DEPLOY: { name: "Deploy", may: "also deploy, cancel, redeploy and roll back" },
  ADMIN: { name: "Admin", may: "also change apps, webhooks, members and keys" },
};

const browsers = [
  [/\bEdg(?:e|A|iOS)?\/(\d+)/, "Edge"],
  [/\bOPR\/(\d+)/, "Opera"],
  [/\b(?:Firefox|FxiOS)\/(\d+)/, "Firefox"],
  [/(?:Chrome|Chromium|CriOS)\/(\d+)/, "Chrome"],
  [/\bVersion\/(\d+).*\bSafari\//, "Safari"],
] as const;

const systems = [
  [/\b(?:iPhone|iPad)\b/, "iOS"],
  [/\bAndroid\b/, "Android"],
  [/\bWindows\b/, "Windows"],
  [/\bMac OS X\b/, "macOS"],
  [/\bCrOS\b/, "ChromeOS"],
  [/\bLinux\b/, "Linux"],
] as const;

/** What a browser calls itself, as people do: "Chrome 156 on Linux". What is no such browser keeps its own words. */
export function browserName(userAgent: string): string {
  if (userAgent === "") return "A browser that does not say what it is";
  for (const [sign, name] of browsers) {
    const version = sign.exec(userAgent)?.[1];
    if (version === undefined) continue;
    const system = systems.find(([s]) => s.test(userAgent))?.[1];
    return `${name} ${version}${system === undefined ? "" : ` on ${system}`}`;
  }
  return userAgent;
}
