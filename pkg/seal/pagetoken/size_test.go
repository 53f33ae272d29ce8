package pagetoken_test

import (
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
)

func TestSize(t *testing.T) {
	for asked, want := range map[int32]int{0: 50, 1: 1, 200: 200, 201: 200, 1 << 30: 200} {
		if got, err := pagetoken.Size(asked, pagetoken.MaxPage); got != want || err != nil {
			t.Errorf("%d rows asked for: %d, %v; want %d", asked, got, err, want)
		}
	}
	if _, err := pagetoken.Size(-1, pagetoken.MaxPage); !apierr.Has(err, apierr.ReasonInvalidArgument) {
		t.Errorf("-1 rows: %v", err)
	}
}
