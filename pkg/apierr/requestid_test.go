package apierr_test

import (
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
)

func TestCheckRequestID(t *testing.T) {
	if err := apierr.CheckRequestID(strings.Repeat("x", apierr.MaxRequestID)); err != nil {
		t.Errorf("the longest one: %v", err)
	}
	err := apierr.CheckRequestID(strings.Repeat("x", apierr.MaxRequestID+1))
	if !apierr.Has(err, apierr.ReasonInvalidArgument) || !strings.Contains(err.Error(), "requestId") || !strings.Contains(err.Error(), "200 bytes") {
		t.Errorf("a longer one: %v", err)
	}
}

func TestFaults_OneLine(t *testing.T) {
	for text, ok := range map[string]bool{"": true, "Müller & Co": true, "two\nlines": false, "a\x00b": false} {
		var f apierr.Faults
		if f.OneLine("label", text); f.Has("label") == ok {
			t.Errorf("%q: noted %t", text, f.Has("label"))
		}
	}
}
