package bitbucket_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// newEndpoint receives deliveries and answers them 202.
func newEndpoint(t *testing.T, receive func(http.Header, []byte)) (address string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			t.Errorf("read delivery: %v", err)
		}
		receive(r.Header.Clone(), body)
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/webhooks/bitbucket/abc"
}
