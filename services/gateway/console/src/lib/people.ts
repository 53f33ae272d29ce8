import type { ApiKeyScope, Role } from "../api/client";

/** What people call the roles. */
export const roleWords: Record<Role, string> = { MEMBER: "Member", ADMIN: "Admin", OWNER: "Owner" };

/** What people call the scopes of API keys, and what these let a program do. */
export const scopeWords: Record<ApiKeyScope, { name: string; may: string }> = {
  READ: { name: "Read", may: "what members see: apps, deployments, logs" },
  DEPLOY: { name: "Deploy", may: "also deploy, cancel, redeploy and roll back" },
  ADMIN: { name: "Admin", may: "also change apps, webhooks, members and keys" },
};
