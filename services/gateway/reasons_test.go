package gateway_test

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

var (
	reasonConstant = regexp.MustCompile(`(Reason\w+)\s+Reason = "([A-Z_]+)"`)
	reasonMade     = regexp.MustCompile(`apierr\.Newf?\(apierr\.(Reason\w+)`)
)

// notAnswered are reasons that a service makes and no request of the API is answered with.
var notAnswered = map[string]string{
	"repo TAG_NOT_FOUND":                    "of ResolveCommit, which is the deployer's: CreateDeployment passes it on",
	"repo COMMIT_NOT_FOUND":                 "of ResolveCommit, as above",
	"repo COMMIT_AMBIGUOUS":                 "of ResolveCommit, as above",
	"repo COMMIT_NOT_IN_BRANCH":             "of ResolveCommit, as above",
	"deployer STORAGE_UNAVAILABLE":          "of every request",
	"gateway HANDSHAKE_EXPIRED":             "of the page that the browser visits",
	"gateway HANDSHAKE_MISMATCH":            "of the page that the browser visits",
	"gateway SIGN_IN_FAILED":                "of the page that the browser visits",
	"gateway NOT_A_MEMBER":                  "of the page that the browser visits",
	"gateway INVITATION_INVALID":            "of the page that the browser visits",
	"gateway IDENTITY_PROVIDER_UNAVAILABLE": "of signing in, and of whoever signed in by a provider that is away for long",
	"auth HANDSHAKE_EXPIRED":                "of the page that the browser visits",
	"auth HANDSHAKE_MISMATCH":               "of the page that the browser visits",
	"auth BITBUCKET_WORKSPACE_EXCLUDED":     "of IssueToken, which only services call",
	"auth CONSENT_DENIED":                   "of the page that the browser visits",
	"auth APPS_WOULD_STOP":                  "of the page that the browser visits",
	"bitbucket BRANCH_NOT_FOUND":            "of GetBranch",
	"bitbucket HANDSHAKE_EXPIRED":           "of the page that the browser visits",
	"bitbucket WEBHOOK_NOT_FOUND":           "webhook registers it anew",
	"deployer BITBUCKET_UNAVAILABLE":        "of a deployment that waits",
}

// TestOpenAPI_declaresEveryReason reads the sources of the services: each reason that one of them
// answers with is in the document, at one of the service's operations or as one of every request's.
func TestOpenAPI_declaresEveryReason(t *testing.T) {
	doc := parseDocument(t)
	table, err := os.ReadFile("../../pkg/apierr/table.go")
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]string{}
	for _, m := range reasonConstant.FindAllStringSubmatch(string(table), -1) {
		words[m[1]] = m[2]
	}
	if len(words) != len(apierr.Table()) {
		t.Fatalf("%d reasons read, there are %d", len(words), len(apierr.Table()))
	}
	declared := map[string][]string{"bitbucket": reasonsAt(doc, "/v1/workspaces/{workspace}/webhooks/{webhook}:register", "post")}
	for _, r := range routes.All() {
		service := "gateway"
		if r.RPC != "" {
			service = strings.Split(r.RPC, ".")[1]
		}
		declared[service] = append(declared[service], reasonsOf(doc, r)...)
	}
	for service, of := range declared {
		dir := filepath.Join("..", service)
		if service == "bitbucket" {
			dir = "../../pkg/bitbucket"
		}
		for word, file := range reasonsMade(t, dir, words) {
			if _, known := notAnswered[service+" "+word]; !known && !slices.Contains(of, word) && !slices.Contains(everyRequest(doc), word) {
				t.Errorf("%s answers %s (%s), which none of its operations declares", service, word, file)
			}
		}
	}
}

func reasonsMade(t *testing.T, dir string, words map[string]string) map[string]string {
	t.Helper()
	made := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "emulator") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		raw, err := os.ReadFile(path)
		for _, m := range reasonMade.FindAllStringSubmatch(string(raw), -1) {
			made[words[m[1]]] = path
		}
		return err
	})
	if err != nil || len(made) == 0 {
		t.Fatalf("%s has %d reasons: %v", dir, len(made), err)
	}
	return made
}

// reasonsOf are the reasons that the document has for a route, beside those of every request.
func reasonsOf(doc object, r routes.Route) []string {
	return reasonsAt(doc, r.Public(), strings.ToLower(r.Method))
}

func reasonsAt(doc object, path, method string) []string {
	return text(at(doc, "paths", path, method, "x-reasons"))
}

func everyRequest(doc object) []string {
	return text(at(doc, "components", "responses", "Failure", "x-reasons"))
}

func text(list any) []string {
	var out []string
	all, _ := list.([]any)
	for _, e := range all {
		out = append(out, e.(string))
	}
	return out
}

// TestOpenAPI_reasonsFollowFromTheRequest: what an operation takes says which reasons it can have.
func TestOpenAPI_reasonsFollowFromTheRequest(t *testing.T) {
	doc := parseDocument(t)
	for _, r := range routes.All() {
		if r.Input == nil {
			continue
		}
		must := map[string]bool{
			"PAGE_TOKEN_INVALID":   r.Input.Fields().ByName("page_token") != nil,
			"ETAG_MISMATCH":        r.TakesETag(),
			"APP_NOT_FOUND":        strings.Contains(r.Public(), "{app}"),
			"DEPLOYMENT_NOT_FOUND": strings.Contains(r.Public(), "{number}"),
			"WEBHOOK_NOT_FOUND":    strings.Contains(r.Public(), "{webhook}"),
			"DELIVERY_NOT_FOUND":   strings.Contains(r.Public(), "{delivery}"),
		}
		for word, needed := range must {
			if needed && !slices.Contains(reasonsOf(doc, r), word) {
				t.Errorf("%s %s does not declare %s", r.Method, r.Public(), word)
			}
		}
		if r.Method == http.MethodPost && r.Input.Fields().ByName("request_id") == nil && !strings.HasSuffix(r.RPC, "/CreateSession") && !strings.HasSuffix(r.RPC, "LoginRequest") {
			t.Errorf("%s %s takes no requestId", r.Method, r.Public())
		}
	}
}
