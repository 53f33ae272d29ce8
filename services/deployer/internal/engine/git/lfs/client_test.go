package lfs

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

func TestLFS_httpsSiteIsNeverSentToHTTP(t *testing.T) {
	t.Parallel()
	c := New(Config{Site: &url.URL{Scheme: "https", Host: "bitbucket.test"}, Stall: time.Second})
	err := c.get(t.Context(), &object{path: "a"}, action{Href: "http://127.0.0.1:1/x"}, nil, nil)
	if e, ok := remote.AsError(err); !ok || e.Reason != remote.ReasonLFSFailed || !strings.Contains(e.Message, "https") {
		t.Fatal(err)
	}
}
