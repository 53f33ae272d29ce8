package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

// step is an operation whose examples are run at this place of the story.
type step struct {
	op      string
	refused string // with this reason, here: the example is good, and what it asks for is not possible now
	may     string // refused with this reason, or done: by how soon it comes after another
	keep    string // VARIABLE=path, of the answer: for the examples after it
	settle  bool   // wait until no deployment of the app waits or runs
	push    bool   // somebody pushes before it
}

// reference is a story in which every operation has its place.
var reference = []step{
	{op: "getInfo"}, {op: "getOpenApi"}, {op: "getConfigSchema"}, {op: "createSession"}, {op: "getMe"}, {op: "createSignInCode"}, {op: "listServers"}, {op: "runDoctor"}, {op: "getDoctorReport"},
	{op: "listSessions", keep: "SESSION_ID=sessions.0.id"},
	{op: "createLoginRequest", keep: "USER_CODE=userCode"}, {op: "redeemLoginRequest", refused: "LOGIN_REQUEST_NOT_FOUND"},
	{op: "getLoginRequest", refused: "BROWSER_REQUIRED"}, {op: "approveLoginRequest", refused: "BROWSER_REQUIRED"}, {op: "denyLoginRequest", refused: "BROWSER_REQUIRED"},
	{op: "createWorkspace"}, {op: "listWorkspaces"}, {op: "getWorkspace"}, {op: "updateWorkspace"},
	{op: "connectIntegration"}, {op: "listIntegrations"}, {op: "getIntegration"}, {op: "getBudget"},
	{op: "refreshIntegration"}, {op: "listBitbucketWorkspaces"}, {op: "narrowIntegration"},
	{op: "listRepositories"}, {op: "getRepository"}, {op: "listBranches", keep: "COMMIT=branches.0.commit.hash"}, {op: "suggestServe"},
	{op: "listTags"}, {op: "listCommits"},
	{op: "createApp"}, {op: "listApps"}, {op: "getApp"},
	{op: "createDeployment", settle: true}, {op: "getDeployment"}, {op: "listDeployments"}, {op: "listWorkspaceDeployments"}, {op: "readLog"},
	{op: "explain"}, {op: "checkPush"}, {op: "cancelDeployment", refused: "NOT_CANCELLABLE"}, {op: "redeployDeployment", settle: true}, {op: "rollBackApp", settle: true},
	{op: "listWebhooks", keep: "WEBHOOK_ID=webhooks.0.id", push: true, settle: true}, {op: "getWebhook"}, {op: "listDeliveries"}, {op: "getDelivery"}, {op: "listAppDeliveries"},
	{op: "revealDeliveryBody"}, {op: "replayDelivery"}, {op: "replayDeliveries"}, {op: "registerWebhook"}, {op: "repairWebhook"},
	{op: "revealWebhookSecret"}, {op: "rotateWebhookSecret"}, {op: "dismissWebhook", refused: "WEBHOOK_IN_USE"},
	{op: "proveIntegration"}, {op: "getProof"}, {op: "runProof", may: "RATE_LIMITED"},
	{op: "createApiKey", keep: "API_KEY_ID=apiKey.id"}, {op: "listApiKeys"}, {op: "deleteApiKey"},
	{op: "listMembers", keep: "MEMBER_ID=members.0.id"}, {op: "listMemberSessions"}, {op: "setMemberRole", refused: "LAST_OWNER"},
	{op: "createInvitation", keep: "INVITATION_ID=invitation.id"}, {op: "listInvitations"}, {op: "deleteInvitation"},
	{op: "createNotificationTarget", keep: "TARGET_ID=target.id"}, {op: "listNotificationTargets"}, {op: "getNotificationTarget"}, {op: "updateNotificationTarget"},
	{op: "sendTestNotification"}, {op: "listNotificationAttempts"}, {op: "rotateNotificationSecret"}, {op: "deleteNotificationTarget"},
	{op: "listActivity"}, {op: "exportActivity"}, {op: "streamEvents"}, {op: "updateApp"},
	{op: "endMemberSession"}, {op: "endSession", refused: "SESSION_NOT_FOUND"}, {op: "removeMember", refused: "LAST_OWNER"},
	{op: "deleteApp"}, {op: "disconnectIntegration"}, {op: "previewDeletion"}, {op: "deleteWorkspace"}, {op: "deleteSession"},
}

// notForPrograms are the operations that have no example, because a browser or Bitbucket calls them.
var notForPrograms = []string{"deliver", "finishAuthorization", "startAuthorization"}

// The examples of the API's reference run as they stand, once the lines of its first page did.
func TestAPIReference_everyExampleForCurlRuns(t *testing.T) {
	t.Parallel()
	b := openBook(t)
	for _, s := range reference {
		b.before(s)
		b.check(s, b.example(s.op, "curl"), s.refused)
		b.after(s)
	}
}

func TestAPIReference_everyExampleOfTheCommandLineRuns(t *testing.T) {
	t.Parallel()
	b := openBook(t)
	ran := 0
	for _, s := range reference {
		b.before(s)
		refused := s.refused
		command := b.example(s.op, "command")
		reads := strings.Contains(b.page(s.op), "<code>GET ")
		if command == "" || reads || s.keep != "" {
			b.check(s, b.example(s.op, "curl"), s.refused)
		}
		if command != "" {
			ran++
			b.run(s, command, refused != "")
		}
		b.after(s)
	}
	if ran < 30 {
		t.Errorf("the reference has %d commands", ran)
	}
}

// book is somebody with a shell who reads the reference of a product of their own.
type book struct {
	t     *testing.T
	api   *api
	home  string
	site  string
	env   []string
	pages map[string]string
}

func openBook(t *testing.T) *book {
	t.Helper()
	home := testkit.FastDir(t)
	dir := filepath.Join(home, ".devpilot")
	_, emulated, _ := strings.Cut(loopback(t), ":")
	d, address := startDaemon(t, dir, "DEVPILOT_EMULATOR=true", "DEVPILOT_EMULATOR_LISTEN=localhost:"+emulated)
	t.Cleanup(d.terminate)
	token, err := os.ReadFile(allinone.AdminTokenFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	b := &book{t: t, api: newBrowser(t, address).signIn(strings.TrimSpace(string(token))), home: home, site: "localhost:" + emulated, pages: map[string]string{}}
	b.api.connect("default", "grant")
	b.env = append(cleanEnviron(), "HOME="+home, "XDG_CONFIG_HOME="+home, "GIT_CONFIG_NOSYSTEM=1", "PATH="+filepath.Dir(program(t, "devpilot"))+":"+os.Getenv("PATH"))
	if err := os.WriteFile(filepath.Join(home, ".curlrc"), []byte("retry = 9\n"), 0o600); err != nil { // what a busy machine asks to be tried again is
		t.Fatal(err)
	}
	shell := snippet(t, b.page(""), "example-shell")
	if !strings.Contains(shell, address) {
		t.Fatalf("the first page's lines do not name this installation:\n%s", shell)
	}
	said, err := b.shell(shell+"\nenv | grep ^DEVPILOT_", string(token))
	if err != nil {
		t.Fatalf("the first page's lines: %v: %s", err, said)
	}
	b.env = append(b.env, strings.Fields(said)...)
	var ids []string
	for _, s := range reference {
		ids = append(ids, s.op)
	}
	ids = append(ids, notForPrograms...)
	slices.Sort(ids)
	if all := operationIDs(t); !slices.Equal(all, ids) {
		t.Fatalf("the story does not have every operation once:\n%v\n%v", all, ids)
	}
	return b
}

func operationIDs(t *testing.T) (ids []string) {
	t.Helper()
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range d.doc["paths"].(object) {
		for _, op := range item.(object) {
			ids = append(ids, op.(object)["operationId"].(string))
		}
	}
	slices.Sort(ids)
	return ids
}

// page reads a page of the reference; "" is the first.
func (b *book) page(name string) string {
	b.t.Helper()
	if text, ok := b.pages[name]; ok {
		return text
	}
	resp, err := http.Get(strings.TrimSuffix(b.api.base+"/docs/api/"+name, "/"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.t.Fatalf("page %q: %d %v", name, resp.StatusCode, err)
	}
	b.pages[name] = string(raw)
	return b.pages[name]
}

// example is what the page of an operation has for a language; "" where it says that there is none.
func (b *book) example(op, language string) string {
	b.t.Helper()
	page := b.page(op)
	if language == "command" && strings.Contains(page, "The command line has no command for it.") {
		return ""
	}
	return snippet(b.t, page, "example-"+language)
}

func snippet(t *testing.T, page, id string) string {
	t.Helper()
	found := regexp.MustCompile(`(?s)<pre id="` + id + `">(.*?)</pre>`).FindStringSubmatch(page)
	if found == nil || strings.TrimSpace(found[1]) == "" {
		t.Fatalf("no %s in %s", id, page)
	}
	return html.UnescapeString(found[1])
}

func (b *book) shell(script, in string) (string, error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), tryItLimit)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-eu", "-c", script) // without pipefail: a reader of a stream ends before it
	c.Dir, c.Env, c.Stdin, c.WaitDelay = b.home, b.env, strings.NewReader(in), 5*time.Second
	var out, errs recorder
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if err != nil && errs.String() != "" {
		err = fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), err
}

func (b *book) before(s step) {
	b.t.Helper()
	if !s.push {
		return
	}
	said, err := b.shell(`git clone -q "http://jane-dev:jane-dev-password@`+b.site+`/acme/web.git" pushed && cd pushed &&
git -c user.name=Jane -c user.email=jane@example.com commit -q --allow-empty -m "Look again" && git push -q`, "")
	if err != nil {
		b.t.Fatalf("push: %v: %s", err, said)
	}
	testkit.Eventually(b.t, timeout, func() error {
		if list := objects(b.api.get("/v1/workspaces/default/apps/web/deliveries")["deliveries"]); len(list) == 0 {
			return fmt.Errorf("the push was not delivered yet")
		}
		return nil
	})
}

func (b *book) after(s step) {
	b.t.Helper()
	if !s.settle {
		return
	}
	(&tenant{t: b.t, api: b.api, workspace: "default"}).settled("web")
}

// check runs an example of curl and holds what came of it against the story.
func (b *book) check(s step, script, refused string) {
	b.t.Helper()
	if refused != "" || s.may != "" { // what is refused for good is not tried again
		script = strings.Replace(script, "curl ", "curl --retry 0 ", 1)
	}
	said, err := b.shell(script, "")
	if err != nil && s.may != "" {
		refused = s.may
	}
	if refused != "" {
		var p problem
		if err == nil || json.Unmarshal([]byte(said), &p) != nil || p.Reason != refused {
			b.t.Fatalf("%s is to be refused with %s: %v: %s\n%s", s.op, refused, err, said, script)
		}
		return
	}
	if err != nil {
		b.t.Fatalf("%s: %v: %s\n%s", s.op, err, said, script)
	}
	if s.keep == "" {
		return
	}
	name, path, _ := strings.Cut(s.keep, "=")
	var answer any
	if err := json.Unmarshal([]byte(said), &answer); err != nil {
		b.t.Fatalf("%s: %v: %s", s.op, err, said)
	}
	value, ok := inside(answer, strings.Split(path, ".")).(string)
	if !ok || value == "" {
		b.t.Fatalf("%s has no %s: %s", s.op, path, said)
	}
	b.env = append(b.env, name+"="+value)
}

// inside walks into a JSON value by names and places.
func inside(v any, path []string) any {
	for _, p := range path {
		switch in := v.(type) {
		case object:
			v = in[p]
		case []any:
			var i int
			if _, err := fmt.Sscan(p, &i); err != nil || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

func (b *book) run(s step, script string, refused bool) {
	b.t.Helper()
	said, err := b.shell(script, "")
	if (err != nil) != refused {
		b.t.Fatalf("%s ended with %v, to be refused: %v:\n%s\n%s", s.op, err, refused, script, said)
	}
}
