package status

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
)

var (
	now      = time.Date(2026, 11, 22, 13, 20, 0, 0, time.UTC)
	consumer = rotation.Consumer{SiteURL: "https://bitbucket.org", Key: "key", Fingerprint: "f"}
)

func at(hour, minute int) *timestamppb.Timestamp {
	return timestamppb.New(time.Date(2026, 11, 22, hour, minute, 0, 0, time.UTC))
}

func record(change func(*authstorev1.Integration)) *authstorev1.Integration {
	r := &authstorev1.Integration{
		SiteUrl: "https://bitbucket.org", ConsumerKey: "key", SuccessFingerprint: "f", Scopes: []string{"account", "repository", "webhook"},
		Access: &authstorev1.AccessToken{ExpireTime: at(14, 20)},
	}
	if change != nil {
		change(r)
	}
	return r
}

func failure(kind authstorev1.Failure_Kind, status int32) func(*authstorev1.Integration) {
	return func(r *authstorev1.Integration) {
		r.Failure = &authstorev1.Failure{Kind: kind, Status: status, SinceTime: at(13, 2), LastTime: at(13, 9), RetryTime: at(13, 29), Fingerprint: "f"}
	}
}

func TestOf(t *testing.T) {
	with := func(fs ...func(*authstorev1.Integration)) *authstorev1.Integration {
		return record(func(r *authstorev1.Integration) {
			for _, f := range fs {
				f(r)
			}
		})
	}
	changed := consumer
	changed.Fingerprint = "new"
	sick := consumer
	sick.Health = rotation.Health{AtFault: true, Since: at(13, 2).AsTime(), Retry: at(13, 30).AsTime()}
	cases := []struct {
		name     string
		rec      *authstorev1.Integration
		consumer rotation.Consumer
		state    authv1.Integration_State
		reason   apierr.Reason
		says     []string
	}{
		{name: "nothing there", rec: nil, state: authv1.Integration_NOT_CONNECTED},
		{name: "fine", rec: record(nil), state: authv1.Integration_CONNECTED},
		{
			name: "Bitbucket is down", rec: with(failure(authstorev1.Failure_UNAVAILABLE, 503)), state: authv1.Integration_REFRESH_FAILING, reason: apierr.ReasonBitbucketUnavailable,
			says: []string{"Bitbucket has not answered our token refresh since 2026-11-22 13:02 UTC (503).", "Deployments go on until 2026-11-22 14:20 UTC.", "We keep trying; you need do nothing."},
		},
		{
			name: "the network is down, the token over", rec: with(failure(authstorev1.Failure_UNAVAILABLE, 0), func(r *authstorev1.Integration) { r.Access.ExpireTime = at(13, 15) }),
			state: authv1.Integration_REFRESH_FAILING, reason: apierr.ReasonBitbucketUnavailable, says: []string{"(no answer)", "Deployments have waited since 2026-11-22 13:15 UTC. We keep trying."},
		},
		{
			name: "too many requests", rec: with(failure(authstorev1.Failure_RATE_LIMITED, 429)), state: authv1.Integration_REFRESH_FAILING, reason: apierr.ReasonBitbucketRateLimited,
			says: []string{"too many requests (429)", "We try again at 2026-11-22 13:29 UTC; you need do nothing."},
		},
		{
			name: "too many requests, the token over", rec: with(failure(authstorev1.Failure_RATE_LIMITED, 429), func(r *authstorev1.Integration) { r.Access.ExpireTime = at(13, 15) }),
			state: authv1.Integration_REFRESH_FAILING, reason: apierr.ReasonBitbucketRateLimited, says: []string{"Deployments have waited since 2026-11-22 13:15 UTC. We try again at 2026-11-22 13:29 UTC."},
		},
		{
			name: "refused once", rec: with(failure(authstorev1.Failure_REFUSED, 400)), state: authv1.Integration_REFRESH_FAILING, reason: apierr.ReasonTokenExpired,
			says: []string{"Bitbucket refused the refresh token at 2026-11-22 13:09 UTC.", "we try again at 2026-11-22 13:29 UTC before we ask you to connect again"},
		},
		{
			name: "refused since the secret was changed", rec: with(failure(authstorev1.Failure_REFUSED, 400)), consumer: changed, state: authv1.Integration_REFRESH_FAILING, reason: apierr.ReasonConsumerRefused,
			says: []string{"since the secret of Devpilot's OAuth consumer was changed", "DEVPILOT_BITBUCKET_CLIENT_SECRET"},
		},
		{
			name: "refused for good", rec: with(failure(authstorev1.Failure_REFUSED, 400), func(r *authstorev1.Integration) {
				r.ReconnectRequired = true
				r.RefusalTimes = []*timestamppb.Timestamp{at(13, 2), at(13, 9)}
			}), state: authv1.Integration_RECONNECT_REQUIRED, reason: apierr.ReasonReconnectRequired,
			says: []string{"Bitbucket refused the refresh token twice (2026-11-22 13:02 UTC, 2026-11-22 13:09 UTC).", "Bitbucket > Personal settings > App authorizations", "your apps and settings stay"},
		},
		{
			name: "the consumer is refused", rec: with(failure(authstorev1.Failure_CONSUMER_REFUSED, 401)), state: authv1.Integration_REFRESH_FAILING, reason: apierr.ReasonConsumerRefused,
			says: []string{"has not accepted the key and secret", "DEVPILOT_BITBUCKET_CLIENT_ID"},
		},
		{
			name: "everybody is refused", rec: record(nil), consumer: sick, state: authv1.Integration_REFRESH_FAILING, reason: apierr.ReasonConsumerRefused,
			says: []string{"refused every connection", "since 2026-11-22 13:02 UTC", "paused until 2026-11-22 13:30 UTC", "nobody need connect again yet"},
		},
		{
			name: "401 for a fresh token", rec: with(failure(authstorev1.Failure_REJECTED, 401)), state: authv1.Integration_REFRESH_FAILING, reason: apierr.ReasonTokenExpired,
			says: []string{"answered 401 to a token that it had only just issued", "whatever was asked for"},
		},
		{
			name: "keyset lost", rec: with(failure(authstorev1.Failure_UNREADABLE, 0)), state: authv1.Integration_REFRESH_FAILING, reason: apierr.ReasonReconnectRequired,
			says: []string{"encryption keyset"},
		},
		{
			name: "a scope is missing", rec: with(func(r *authstorev1.Integration) { r.Scopes = []string{"account", "repository"} }), state: authv1.Integration_RECONNECT_REQUIRED, reason: apierr.ReasonScopeMissing,
			says: []string{`lacks the box "Webhooks: Read and write". Tick it at Bitbucket`},
		},
		{
			name: "two scopes are missing", rec: with(func(r *authstorev1.Integration) { r.Scopes = []string{"account"} }), state: authv1.Integration_RECONNECT_REQUIRED, reason: apierr.ReasonScopeMissing,
			says: []string{`the boxes "Repositories: Read" and "Webhooks: Read and write". Tick them`},
		},
		{
			name: "another site", rec: record(nil), consumer: rotation.Consumer{SiteURL: "http://localhost:8081", Key: "key"}, state: authv1.Integration_RECONNECT_REQUIRED, reason: apierr.ReasonReconnectRequired,
			says: []string{"https://bitbucket.org", "http://localhost:8081", "Connect again"},
		},
		{
			name: "another consumer", rec: record(nil), consumer: rotation.Consumer{SiteURL: "https://bitbucket.org", Key: "other"}, state: authv1.Integration_RECONNECT_REQUIRED, reason: apierr.ReasonReconnectRequired,
			says: []string{"another OAuth consumer", "Deployments go on until 2026-11-22 14:20 UTC."},
		},
		{
			name: "no consumer any more", rec: record(nil), consumer: rotation.Consumer{SiteURL: "https://bitbucket.org"}, state: authv1.Integration_RECONNECT_REQUIRED, reason: apierr.ReasonConsumerRefused,
			says: []string{"no OAuth consumer any more"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.consumer.SiteURL == "" {
				c.consumer = consumer
			}
			if got := State(c.rec, c.consumer, now); got != c.state {
				t.Errorf("state %v, want %v", got, c.state)
			}
			if c.rec == nil {
				return
			}
			trouble := Of(c.rec, c.consumer, now)
			if (trouble == nil) != (c.reason == "") {
				t.Fatalf("trouble %v", trouble)
			}
			if trouble == nil {
				if LastError(nil) != nil {
					t.Error("an error out of nothing")
				}
				return
			}
			if trouble.Reason != c.reason {
				t.Errorf("reason %s, want %s", trouble.Reason, c.reason)
			}
			if _, known := apierr.Lookup(trouble.Reason); !known {
				t.Errorf("%s is not in the table", trouble.Reason)
			}
			for _, s := range c.says {
				if !strings.Contains(trouble.Message, s) {
					t.Errorf("%q does not say %q", trouble.Message, s)
				}
			}
			for _, s := range []string{"!", "%", "  ", "Something went wrong", "1970"} {
				if strings.Contains(trouble.Message, s) {
					t.Errorf("%q says %q", trouble.Message, s)
				}
			}
			if !strings.HasSuffix(trouble.Message, ".") {
				t.Errorf("%q does not end", trouble.Message)
			}
			if e := LastError(trouble); e.GetMessage() != trouble.Message || e.GetReason() != string(trouble.Reason) {
				t.Errorf("%v", e)
			}
		})
	}
}

func TestDenied(t *testing.T) {
	failing := record(failure(authstorev1.Failure_UNAVAILABLE, 503))
	givenUp := record(failure(authstorev1.Failure_REFUSED, 400))
	givenUp.ReconnectRequired = true
	for _, c := range []struct {
		denial rotation.Denial
		rec    *authstorev1.Integration
		reason apierr.Reason
		retry  time.Duration
	}{
		{rotation.NotConnected, nil, apierr.ReasonNotConnected, 0},
		{rotation.OtherSite, record(nil), apierr.ReasonReconnectRequired, 0},
		{rotation.OtherConsumer, record(nil), apierr.ReasonReconnectRequired, 0},
		{rotation.ConsumerAtFault, record(nil), apierr.ReasonConsumerRefused, 0},
		{rotation.Failing, failing, apierr.ReasonBitbucketUnavailable, 9 * time.Minute},
		{rotation.Failing, givenUp, apierr.ReasonReconnectRequired, 9 * time.Minute},
		{rotation.NotDenied, record(nil), apierr.ReasonTokenExpired, 5 * time.Second},
	} {
		other := consumer
		if c.denial == rotation.OtherConsumer {
			other.Key = "other"
		}
		e := Denied(c.denial, c.rec, other, now)
		if e.Reason() != c.reason || e.RetryAfter() != c.retry {
			t.Errorf("denial %v: %v, retry after %v", c.denial, e, e.RetryAfter())
		}
	}
}
