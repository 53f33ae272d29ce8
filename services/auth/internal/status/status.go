// Package status says in words how an integration stands: its state, what is wrong, since when, and
// what to do. The same words serve the page that shows the integration and the error of whoever asks
// for a token.
//
// It depends on package rotation and pkg/apierr.
package status

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/when"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
	"devpilot.io/bitbucket/services/auth/internal/scope"
)

// Trouble is what is wrong with an integration.
type Trouble struct {
	Reason  apierr.Reason
	Message string // sentences for people, with what to do
	// Time and Since are when it was last and first seen, Retry when the next attempt is due; zero
	// where that means nothing.
	Time, Since, Retry time.Time
	// Final says that nothing but connecting again helps.
	Final bool
}

// State is the state of the integration in today's settings; rec is nil while nobody is connected.
func State(rec *authstorev1.Integration, c rotation.Consumer, now time.Time) authv1.Integration_State {
	if rec == nil {
		return authv1.Integration_NOT_CONNECTED
	}
	switch t := Of(rec, c, now); {
	case t == nil:
		return authv1.Integration_CONNECTED
	case t.Final:
		return authv1.Integration_RECONNECT_REQUIRED
	default:
		return authv1.Integration_REFRESH_FAILING
	}
}

// Of says what is wrong with a connected integration; nil when nothing is.
func Of(rec *authstorev1.Integration, c rotation.Consumer, now time.Time) *Trouble {
	switch {
	case rec.GetSiteUrl() != c.SiteURL:
		return otherSite(rec, c)
	case rec.GetConsumerKey() != c.Key:
		return otherConsumer(rec, c, now)
	case rec.GetReconnectRequired():
		return givenUp(rec)
	case len(scope.Missing(rec.GetScopes())) > 0:
		return scopeMissing(rec)
	case c.Health.AtFault:
		return consumerAtFault(rec, c, now)
	case rec.GetFailure() != nil:
		return failing(rec, c, now)
	}
	return nil
}

// Unreadable says that the keyset in use cannot open what is stored.
const Unreadable = "The stored tokens cannot be read with the encryption keyset in use. The operator restores the keyset that they were sealed with, or an owner or admin connects again."

// Denied is the answer to someone whose wish package rotation denied. rec may be nil with
// NotConnected.
func Denied(d rotation.Denial, rec *authstorev1.Integration, c rotation.Consumer, now time.Time) *apierr.Error {
	var t *Trouble
	switch d {
	case rotation.NotConnected:
		return apierr.New(apierr.ReasonNotConnected, "No Bitbucket account is connected to this workspace. An owner or admin connects one under Integrations.")
	case rotation.OtherSite:
		t = otherSite(rec, c)
	case rotation.OtherConsumer:
		t = otherConsumer(rec, c, now)
	case rotation.ConsumerAtFault:
		t = consumerAtFault(rec, c, now)
	case rotation.Failing:
		if rec.GetReconnectRequired() {
			t = givenUp(rec)
		} else {
			t = failing(rec, c, now)
		}
	case rotation.NotDenied:
	}
	if t == nil {
		return apierr.New(apierr.ReasonTokenExpired, "The token could not be renewed in time. Try again in a moment.", apierr.WithRetryAfter(5*time.Second))
	}
	e := apierr.New(t.Reason, t.Message)
	if t.Retry.After(now) {
		e = e.With(apierr.WithRetryAfter(t.Retry.Sub(now)))
	}
	return e
}

// LastError is the trouble as the API shows it; nil for nil.
func LastError(t *Trouble) *authv1.IntegrationError {
	if t == nil {
		return nil
	}
	return &authv1.IntegrationError{
		Reason: string(t.Reason), Message: t.Message,
		Time: stamp(t.Time), SinceTime: stamp(t.Since), RetryTime: stamp(t.Retry),
	}
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func otherSite(rec *authstorev1.Integration, c rotation.Consumer) *Trouble {
	return &Trouble{Final: true, Reason: apierr.ReasonReconnectRequired, Message: fmt.Sprintf(
		"This account was connected at %s, but Devpilot is now set up for %s and never sends a token to another site. Connect again: your apps and settings stay.",
		rec.GetSiteUrl(), c.SiteURL)}
}

func otherConsumer(rec *authstorev1.Integration, c rotation.Consumer, now time.Time) *Trouble {
	t := &Trouble{Final: true, Reason: apierr.ReasonReconnectRequired}
	if c.Key == "" {
		t.Reason = apierr.ReasonConsumerRefused
		t.Message = "Devpilot has no OAuth consumer any more, so the connection cannot be renewed. The operator sets DEVPILOT_BITBUCKET_CLIENT_ID and DEVPILOT_BITBUCKET_CLIENT_SECRET. " + goOn(rec, now)
		return t
	}
	t.Message = "This account was connected through another OAuth consumer than the one Devpilot is set up with now, and its tokens cannot be renewed with this one. Connect again: your apps and settings stay. " + goOn(rec, now)
	return t
}

func givenUp(rec *authstorev1.Integration) *Trouble {
	f := rec.GetFailure()
	t := &Trouble{Final: true, Reason: apierr.ReasonReconnectRequired}
	fill(t, f)
	often := "twice"
	if times := rec.GetRefusalTimes(); len(times) >= 2 {
		first, last := times[0].AsTime(), times[len(times)-1].AsTime()
		if len(times) > 2 {
			often = "several times"
		}
		often += fmt.Sprintf(" (%s, %s)", when.UTC(first), when.UTC(last))
	}
	t.Message = fmt.Sprintf("Bitbucket refused the refresh token %s. This happens when access was revoked in Bitbucket > Personal settings > App authorizations. Connect again: your apps and settings stay.", often)
	return t
}

func scopeMissing(rec *authstorev1.Integration) *Trouble {
	return &Trouble{Final: true, Reason: apierr.ReasonScopeMissing, Message: ScopeMessage(scope.Missing(rec.GetScopes()))}
}

// ScopeMessage says which boxes of the consumer form are not ticked.
func ScopeMessage(missing []string) string {
	boxes := "the box " + scope.Checkboxes(missing)
	them := "it"
	if len(missing) > 1 {
		boxes, them = "the boxes "+scope.Checkboxes(missing), "them"
	}
	return fmt.Sprintf("Bitbucket did not grant all that Devpilot needs: the OAuth consumer lacks %s. Tick %s at Bitbucket under Workspace settings > OAuth consumers, then connect again.", boxes, them)
}

func consumerAtFault(rec *authstorev1.Integration, c rotation.Consumer, now time.Time) *Trouble {
	last := c.Health.Since
	if f := rec.GetFailure(); f != nil {
		last = f.GetLastTime().AsTime()
	}
	return &Trouble{
		Reason: apierr.ReasonConsumerRefused, Time: last, Since: c.Health.Since, Retry: c.Health.Retry,
		Message: fmt.Sprintf("Bitbucket has refused every connection of Devpilot's OAuth consumer since %s, so most likely its key or secret is wrong. The operator checks DEVPILOT_BITBUCKET_CLIENT_ID and DEVPILOT_BITBUCKET_CLIENT_SECRET against Bitbucket. Renewing is paused until %s; nobody need connect again yet. %s",
			when.UTC(c.Health.Since), when.UTC(c.Health.Retry), goOn(rec, now)),
	}
}

func failing(rec *authstorev1.Integration, c rotation.Consumer, now time.Time) *Trouble {
	f := rec.GetFailure()
	t := &Trouble{}
	fill(t, f)
	since := when.UTC(f.GetSinceTime().AsTime())
	answer := "no answer"
	if f.GetStatus() != 0 {
		answer = fmt.Sprint(f.GetStatus())
	}
	switch f.GetKind() {
	case authstorev1.Failure_UNAVAILABLE:
		t.Reason = apierr.ReasonBitbucketUnavailable
		t.Message = fmt.Sprintf("Bitbucket has not answered our token refresh since %s (%s). %s We keep trying%s.", since, answer, goOn(rec, now), calm(rec, now))
	case authstorev1.Failure_RATE_LIMITED:
		t.Reason = apierr.ReasonBitbucketRateLimited
		t.Message = fmt.Sprintf("Bitbucket has not taken our token refresh since %s: too many requests (%s). %s We try again at %s%s.", since, answer, goOn(rec, now), when.UTC(t.Retry), calm(rec, now))
	case authstorev1.Failure_REJECTED:
		t.Reason = apierr.ReasonTokenExpired
		t.Message = fmt.Sprintf("Bitbucket has answered 401 to a token that it had only just issued, whatever was asked for, since %s. We ask again at %s. If this stays, check at Bitbucket that the account is active.", since, when.UTC(t.Retry))
	case authstorev1.Failure_UNREADABLE:
		t.Reason = apierr.ReasonReconnectRequired
		t.Message = Unreadable
	case authstorev1.Failure_CONSUMER_REFUSED:
		t.Reason = apierr.ReasonConsumerRefused
		t.Message = fmt.Sprintf("Bitbucket has not accepted the key and secret of Devpilot's OAuth consumer since %s. The operator checks DEVPILOT_BITBUCKET_CLIENT_ID and DEVPILOT_BITBUCKET_CLIENT_SECRET. %s", since, goOn(rec, now))
	case authstorev1.Failure_REFUSED, authstorev1.Failure_KIND_UNSPECIFIED:
		if f.GetFingerprint() != rec.GetSuccessFingerprint() || c.Fingerprint != rec.GetSuccessFingerprint() {
			t.Reason = apierr.ReasonConsumerRefused
			t.Message = fmt.Sprintf("Bitbucket has refused the refresh token since the secret of Devpilot's OAuth consumer was changed (%s). The operator checks DEVPILOT_BITBUCKET_CLIENT_SECRET; if it is right, connect again. %s", since, goOn(rec, now))
			break
		}
		t.Reason = apierr.ReasonTokenExpired
		t.Message = fmt.Sprintf("Bitbucket refused the refresh token at %s. That can pass, so we try again at %s before we ask you to connect again. %s", when.UTC(f.GetLastTime().AsTime()), when.UTC(t.Retry), goOn(rec, now))
	}
	return t
}

func fill(t *Trouble, f *authstorev1.Failure) {
	t.Time, t.Since, t.Retry = f.GetLastTime().AsTime(), f.GetSinceTime().AsTime(), f.GetRetryTime().AsTime()
}

// goOn says until when the last token serves.
func goOn(rec *authstorev1.Integration, now time.Time) string {
	expire := rec.GetAccess().GetExpireTime()
	switch {
	case expire == nil || rec.GetAccess().GetRejected():
		return "Deployments wait until then."
	case expire.AsTime().After(now):
		return fmt.Sprintf("Deployments go on until %s.", when.UTC(expire.AsTime()))
	default:
		return fmt.Sprintf("Deployments have waited since %s.", when.UTC(expire.AsTime()))
	}
}

// calm says that nobody need do anything, as long as deployments go on.
func calm(rec *authstorev1.Integration, now time.Time) string {
	if a := rec.GetAccess(); a.GetRejected() || !a.GetExpireTime().AsTime().After(now) {
		return ""
	}
	return "; you need do nothing"
}
