package account

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
)

// auth hands out "token-1", and the next one where the newest was rejected.
type auth struct {
	authv1.AuthServiceClient
	site bitbucket.Site

	mu         sync.Mutex
	n          int
	connection string
	asked      []*authv1.IssueTokenRequest
	err        error
}

func (a *auth) IssueToken(_ context.Context, req *authv1.IssueTokenRequest, _ ...grpc.CallOption) (*authv1.IssueTokenResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, req)
	if a.err != nil {
		return nil, a.err
	}
	if sum := sha256.Sum256([]byte(a.token())); string(sum[:]) == string(req.GetRejectedTokenSha256()) {
		a.n++
	}
	return &authv1.IssueTokenResponse{AccessToken: a.token(), ConnectionId: a.connection, SiteUrl: a.site.SiteURL, ApiUrl: a.site.APIURL}, nil
}

func (a *auth) token() string { return fmt.Sprintf("token-%d", a.n) }

// newSource makes a source of calls to a Bitbucket that accepts tokens other than the refused ones.
func newSource(t *testing.T, refused ...string) (*Source, *auth) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, token := range refused {
			if r.Header.Get("Authorization") == "Bearer "+token {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"uuid":"{0b7c0e0a-1111-4222-8333-444455556666}"}`))
	}))
	t.Cleanup(server.Close)
	site, err := bitbucket.NewSite(server.URL, server.URL+"/2.0")
	if err != nil {
		t.Fatal(err)
	}
	a := &auth{site: site, n: 1, connection: "c1"}
	return NewSource(a, bitbucket.NewClient(site, bitbucket.ClientOptions{HTTPClient: server.Client()})), a
}

func TestOpen_asksForATokenThatOutlivesTheOperation(t *testing.T) {
	source, a := newSource(t)
	conn, err := source.Open(t.Context(), "acme-inc")
	if err != nil || conn.ID != "c1" || conn.Workspace != "acme-inc" {
		t.Fatalf("Open = %+v, %v", conn, err)
	}
	for range 3 {
		if _, err := conn.Account.User(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.asked) != 1 || a.asked[0].GetMinLife().AsDuration() != 5*time.Minute || a.asked[0].GetRejectedTokenSha256() != nil {
		t.Errorf("asked auth %v", a.asked)
	}
}

func TestToken_rejectedIsExchangedOnceForAllWhoAsk(t *testing.T) {
	source, a := newSource(t, "token-1")
	conn, err := source.Open(t.Context(), "acme-inc")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := conn.Account.User(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(a.asked) != 2 || a.n != 2 {
		t.Errorf("asked auth %d times, want 2", len(a.asked))
	}
}

func TestToken_connectedAnewMeanwhile(t *testing.T) {
	source, a := newSource(t, "token-1")
	conn, err := source.Open(t.Context(), "acme-inc")
	if err != nil {
		t.Fatal(err)
	}
	a.connection = "c2"
	if _, err := conn.Account.User(t.Context()); !apierr.Has(err, apierr.ReasonTokenExpired) {
		t.Errorf("err = %v: the other account's token was used for this connection", err)
	}
}

func TestOpen_errors(t *testing.T) {
	source, a := newSource(t)
	a.err = apierr.New(apierr.ReasonNotConnected, "Bitbucket is not connected.")
	if _, err := source.Open(t.Context(), "acme-inc"); !apierr.Has(err, apierr.ReasonNotConnected) {
		t.Errorf("err = %v", err)
	}
	a.err = nil
	for what, site := range map[string]bitbucket.Site{
		"another site": {SiteURL: "https://bitbucket.org", APIURL: "https://api.bitbucket.org/2.0"},
		"no site":      {},
		"another API":  {SiteURL: a.site.SiteURL, APIURL: a.site.APIURL + "/other"},
	} {
		a.site = site
		_, err := source.Open(t.Context(), "acme-inc")
		if !apierr.Has(err, apierr.ReasonReconnectRequired) || strings.Contains(fmt.Sprint(err), "token-") {
			t.Errorf("%s: err = %v", what, err)
		}
	}
}
