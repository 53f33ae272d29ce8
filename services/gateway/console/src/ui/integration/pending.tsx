import type { Integration } from "../../api/client";
import { useNow } from "../../lib/clock";
import { Banner, Copyable, Time } from "../basics";

const answerDue = 2 * 60_000;

/** A connect that was begun and has not come back; after two minutes it says what may be in the way. */
export function Pending({ integration: i }: { integration: Integration }) {
  const now = useNow(1000).getTime();
  const p = i.pendingHandshake;
  const begun = Date.parse(p?.startTime ?? "");
  if (p === undefined || Number.isNaN(begun) || (p.expireTime !== undefined && Date.parse(p.expireTime) <= now))
    return null;
  if (now - begun < answerDue) {
    return (
      <Banner tone="idle" role="status" title="A connection waits for Bitbucket's answer.">
        Begun <Time at={p.startTime} />
        {p.expireTime !== undefined && (
          <>
            , good until <Time at={p.expireTime} style="clock" />
          </>
        )}
        . Finish on Bitbucket's page, or press Connect to start again.
      </Banner>
    );
  }
  return (
    <Banner tone="warn" role="status" title="Bitbucket has not answered for 2 minutes.">
      If its page says “Invalid redirect_uri”, the OAuth consumer has another callback URL than this one. Copy it into
      the consumer, exactly as it stands, then connect again. If you closed the page, simply connect again.
      {i.setup !== undefined && <Copyable label="Callback URL" value={i.setup.callbackUrl} />}
    </Banner>
  );
}
