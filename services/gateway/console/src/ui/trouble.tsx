import { Link } from "react-router";
import type { App, Integration } from "../api/client";
import { troubleOf } from "../lib/trouble";
import { usePlace } from "../lib/workspace";
import { Banner, Text } from "./basics";

/** The workspace's own trouble, at most one banner: what is wrong for all its apps, and the way to mend it. */
export function WorkspaceTrouble({ integration, apps }: { integration: Integration | undefined; apps: App[] }) {
  const { ws } = usePlace();
  const trouble = troubleOf(integration, apps);
  if (trouble === undefined) return null;
  return (
    <Banner
      tone={trouble.tone}
      title={trouble.title}
      role="status"
      actions={
        <Link className="button plain" to={trouble.to(ws)}>
          {trouble.action}
        </Link>
      }
    >
      <Text>{trouble.text}</Text>
    </Banner>
  );
}
