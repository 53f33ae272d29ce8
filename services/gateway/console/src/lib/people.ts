import type { Role } from "../api/client";

/** What people call the roles. */
export const roleWords: Record<Role, string> = { MEMBER: "Member", ADMIN: "Admin", OWNER: "Owner" };
