package rotation

import (
	"iter"
	"time"

	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// Health is how an OAuth consumer stands, as its connections tell together.
type Health struct {
	// AtFault: several connections were refused and none was renewed since. The key or the secret is
	// wrong, or Bitbucket has trouble; the connections themselves are not to blame.
	AtFault bool
	// Since is the first of these refusals, Retry when the next connection tries.
	Since, Retry time.Time
}

// HealthOf judges the consumer of that fingerprint by the schedules of all integrations. Connections
// that were refused for good have no say.
func HealthOf(schedules iter.Seq[*authstorev1.Schedule], fingerprint string) Health {
	var success time.Time
	var refused []*authstorev1.Schedule
	for s := range schedules {
		if s.GetSuccessFingerprint() == fingerprint {
			success = later(success, s.GetLastSuccessTime().AsTime())
		}
		if s.GetRefusedFingerprint() == fingerprint && s.GetState() != authstorev1.Schedule_RECONNECT_REQUIRED {
			refused = append(refused, s)
		}
	}
	var h Health
	n := 0
	for _, s := range refused {
		if !s.GetLastRefusalTime().AsTime().After(success) {
			continue
		}
		n++
		if first := s.GetFirstRefusalTime().AsTime(); h.Since.IsZero() || first.Before(h.Since) {
			h.Since = first
		}
		if retry := s.GetRetryTime().AsTime(); h.Retry.IsZero() || retry.Before(h.Retry) {
			h.Retry = retry
		}
	}
	if n < 2 {
		return Health{}
	}
	h.AtFault = true
	return h
}

// EvidenceOf gathers what the other connections of the consumer tell when one of workspace is
// refused.
func EvidenceOf(schedules iter.Seq[*authstorev1.Schedule], workspace, consumerKey, fingerprint string) Evidence {
	var e Evidence
	for s := range schedules {
		if s.GetWorkspace() == workspace || s.GetConsumerKey() != consumerKey {
			continue
		}
		if s.GetRefusedFingerprint() == fingerprint {
			e.LastRefusal = later(e.LastRefusal, s.GetLastRefusalTime().AsTime())
		}
		if s.GetState() == authstorev1.Schedule_RECONNECT_REQUIRED {
			continue
		}
		e.Others = true
		if s.GetSuccessFingerprint() == fingerprint {
			e.LastSuccess = later(e.LastSuccess, s.GetLastSuccessTime().AsTime())
		}
	}
	return e
}
