package bitbucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// MaxSkew is how far our clock and Bitbucket's may differ: tokens and sign-ins live by the clock.
const MaxSkew = 30 * time.Second

// ErrNoTime says that a site answers without its time.
var ErrNoTime = errors.New("the answer has no time")

// Clock asks a site for its time, without credentials and outside the budget of the REST API.
func Clock(ctx context.Context, client *http.Client, siteURL string) (time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, siteURL, http.NoBody)
	if err != nil {
		return time.Time{}, fmt.Errorf("bitbucket: ask for the time: %w", err)
	}
	answer, err := client.Do(req)
	if err != nil {
		return time.Time{}, fmt.Errorf("bitbucket: ask for the time: %w", err)
	}
	_ = answer.Body.Close()
	at, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return time.Time{}, fmt.Errorf("bitbucket: %w", ErrNoTime)
	}
	return at, nil
}
