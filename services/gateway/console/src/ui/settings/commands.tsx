import type { App } from "../../api/client";
import { Hooks } from "./hooks";
import { SharedPaths, Variables } from "./variables";

/** What deployments run, and what it runs with. */
export default function Commands({ app }: { app: App }) {
  return (
    <>
      <Hooks app={app} />
      <Variables app={app} />
      <SharedPaths app={app} />
    </>
  );
}
