import { createContext, useContext } from "react";
import type { Info, Me, Workspace } from "../api/client";

export interface Place {
  ws: string;
  workspace: Workspace;
  me: Me;
  info: Info | undefined;
  /** Why owners' and admins' actions are closed to this person; undefined when they are open. */
  adminOnly: string | undefined;
}

const Context = createContext<Place | undefined>(undefined);
export const PlaceProvider = Context.Provider;

/** The workspace that the address names, and who is looking at it. */
export function usePlace(): Place {
  const place = useContext(Context);
  if (place === undefined) throw new Error("usePlace outside of a workspace's pages");
  return place;
}

/**
 * The name of who is looking, as the service writes it into its sentences and records of this workspace: where another
 * member has the same one, with what tells them apart. Empty outside of a workspace's pages.
 */
export function useMyLabel(): string {
  const place: Partial<Place> | undefined = useContext(Context);
  return place?.workspace?.yourLabel ?? place?.me?.label ?? "";
}

/** Why what only owners do is closed to this person; undefined when it is open. */
export function ownerOnly(workspace: Workspace): string | undefined {
  return workspace.role === "OWNER"
    ? undefined
    : `You are ${workspace.role === "ADMIN" ? "an admin" : "a member"} of ${workspace.displayName}. Ask one of its owners to rename or delete it.`;
}

export function adminOnly(workspace: Workspace): string | undefined {
  return workspace.role === "OWNER" || workspace.role === "ADMIN"
    ? undefined
    : `You are a member of ${workspace.displayName}. Ask one of its owners or admins to do this.`;
}
