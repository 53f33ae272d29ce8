package ops

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// A process registers checks while it starts, and may be asked in between.
func TestReadiness_countsACheckThatIsRegisteredWhileItIsAsked(t *testing.T) {
	var r Readiness
	r.Add("startup", func(context.Context) error {
		r.Add("service", func(context.Context) error { return errors.New("stores are not open yet") })
		return nil
	})
	if err := r.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "stores") {
		t.Errorf("got %v", err)
	}
}
