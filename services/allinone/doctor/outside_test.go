package doctor

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/checkup"
)

func TestRun_outsideThatIsNotWell(t *testing.T) {
	w := newWorld(t)
	w.fails([]failing{
		{"clock", "repo", "clock", map[string]string{"DEVPILOT_BITBUCKET_SITE_URL": answering(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		})}, checkup.Failed, "behind Bitbucket's", "NTP"},
		{"no Bitbucket", "repo", "clock", map[string]string{"DEVPILOT_BITBUCKET_SITE_URL": "http://127.0.0.1:1"}, checkup.Failed, "does not answer", "reaches Bitbucket"},
		{"something else at the public URL", "gateway", "public-url", map[string]string{"DEVPILOT_PUBLIC_URL": answering(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"hello":1}`) })}, checkup.Failed, "is not Devpilot", "Point the name"},
		{"nothing at the public URL", "gateway", "public-url", nil, checkup.Failed, "does not answer", "Point the name"},
		{"wrong secret of the consumer", "auth", "oauth-consumer", map[string]string{"DEVPILOT_BITBUCKET_CLIENT_SECRET": "wrong"}, checkup.Failed, "does not accept the OAuth consumer", "callback URL has to be http://127.0.0.1:1/oauth"},
		{"no consumer", "auth", "oauth-consumer", map[string]string{"DEVPILOT_BITBUCKET_CLIENT_ID": "-"}, checkup.Warning, "nobody can connect", "DEVPILOT_BITBUCKET_CLIENT_ID"},
		{"something else takes deliveries", "webhook", "webhook-delivery", map[string]string{"DEVPILOT_PUBLIC_URL": answering(t, func(http.ResponseWriter, *http.Request) {})}, checkup.Failed, "not this Devpilot that answers", "passes POST"},
	})
}
