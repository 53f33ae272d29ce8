import { api } from "./client";

/** Ends the session, here and with the identity provider where that can be. */
export function signOut(): void {
  void api.DELETE("/v1/session", {}).then(
    (r) => window.location.assign(r.data?.signOutUrl ?? "/sign-in"),
    () => window.location.assign("/sign-in"),
  );
}
