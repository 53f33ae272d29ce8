package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
)

// needles are the texts that give a secret away: itself, parts of a long one, and as URLs, HTTP
// headers, JSON of bytes and dumps would write it.
func needles(secret string) [][]byte {
	const part = 40
	list := []string{secret}
	if len(secret) > 3*part {
		list = []string{secret[:part], secret[len(secret)/2 : len(secret)/2+part], secret[len(secret)-part:]}
	}
	var all [][]byte
	for _, one := range list {
		all = append(all, []byte(one), []byte(url.QueryEscape(one)), []byte(hex.EncodeToString([]byte(one))))
		for shift := range 3 { // base64 of something that contains it
			cut := len(one) - (len(one)-shift)%3
			for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				all = append(all, []byte(encoding.EncodeToString([]byte(one[shift:cut]))))
			}
		}
	}
	slices.SortFunc(all, bytes.Compare)
	return slices.CompactFunc(all, bytes.Equal)
}

// search looks for secrets in many places and names what it finds without showing it.
type search struct {
	t      testing.TB
	begins [1 << 16]bool                // whether a needle begins with these two bytes
	by     map[[beginning]byte][]needle // all needles, by how they begin
	looked int64                        // bytes
	found  []string                     // what stands where
}

// beginning is how many bytes every needle has at least.
const beginning = 8

// needle is one form of one secret.
type needle struct {
	what string
	text []byte
}

func newSearch(t testing.TB, secrets map[string]string) *search {
	t.Helper()
	s := &search{t: t, by: map[[beginning]byte][]needle{}}
	for what, secret := range secrets {
		if len(secret) < 16 {
			t.Fatalf("%s is too short to search for", what)
		}
		for _, text := range needles(secret) {
			key := [beginning]byte(text[:beginning])
			s.begins[uint16(text[0])<<8|uint16(text[1])] = true
			s.by[key] = append(s.by[key], needle{what, text})
		}
	}
	return s
}

func (s *search) in(place string, data []byte) {
	s.t.Helper()
	s.looked += int64(len(data))
	seen := map[string]bool{}
	for i := 0; i+beginning <= len(data); i++ { // once for all needles: there are thousands
		if !s.begins[uint16(data[i])<<8|uint16(data[i+1])] {
			continue
		}
		for _, n := range s.by[[beginning]byte(data[i:])] {
			if !seen[n.what] && bytes.HasPrefix(data[i:], n.text) {
				seen[n.what] = true
				s.found = append(s.found, n.what+" stands in "+place)
			}
		}
	}
}

// nothing fails the test when something was found.
func (s *search) nothing() {
	s.t.Helper()
	slices.Sort(s.found)
	for _, finding := range slices.Compact(s.found) {
		s.t.Error(finding)
	}
}

// files searches everything below a directory but what is kept there on purpose.
func (s *search) files(root string, kept []string) {
	s.t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // gone while we looked
		case err != nil:
			return err
		case slices.Contains(kept, path) && entry.IsDir():
			return fs.SkipDir
		case slices.Contains(kept, path) || !entry.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		s.in(path, data)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// secrets are all that were planted and all that passed Bitbucket's door.
func (s *shared) secrets() map[string]string {
	all := map[string]string{"the consumer's secret": consumer.Secret, "the admin token": s.adminToken()}
	s.mu.Lock()
	for what, secret := range s.planted {
		all[what] = secret
	}
	s.mu.Unlock()
	for i, secret := range s.site().passed() {
		all[fmt.Sprintf("a secret of Bitbucket %d", i)] = secret
	}
	if u, err := url.Parse(s.url()); err == nil {
		for _, c := range s.owner.http.Jar.Cookies(u) {
			all["cookie "+c.Name] = c.Value
		}
	}
	return all
}

// plantedSecrets searches everything that the scenarios left behind.
func plantedSecrets(t *testing.T, s *shared) {
	secrets := s.secrets()
	if len(s.site().passed("access token")) < 5 || len(s.site().passed("webhook secret")) < 5 {
		t.Fatalf("only %d secrets passed Bitbucket's door", len(s.site().passed()))
	}
	if _, found := secrets["cookie devpilot_session"]; !found {
		t.Fatal("the session cookie is not among the secrets")
	}
	look := newSearch(t, secrets)
	look.in("the log", []byte(s.output()))
	for _, place := range s.places() {
		look.files(place, s.kept())
	}
	js, messages := s.js(t), 0
	for _, info := range streams(t, js) {
		messages += look.stream(js, info)
	}
	keys := look.redis(s.redisURL())
	look.nothing()
	t.Logf("%d secrets searched for in %d KiB: log, files, %d stored messages, %d Redis keys", len(secrets), look.looked>>10, messages, keys)
}

// streams lists all streams, those of buckets too.
func streams(t *testing.T, js jetstream.JetStream) []*jetstream.StreamInfo {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	lister := js.ListStreams(ctx)
	var list []*jetstream.StreamInfo
	for info := range lister.Info() {
		list = append(list, info)
	}
	if err := lister.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// stream searches the messages of a stream.
func (s *search) stream(js jetstream.JetStream, info *jetstream.StreamInfo) int {
	s.t.Helper()
	name := info.Config.Name
	st, err := js.Stream(s.t.Context(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	count := 0
	for seq := info.State.FirstSeq; ; seq++ {
		m, err := st.GetMsg(s.t.Context(), seq, jetstream.WithGetMsgSubject(">")) // the next one there is
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			s.t.Fatal(err)
		}
		seq = m.Sequence
		s.in("stream "+name+", subject "+m.Subject, m.Data)
		s.in("a header in stream "+name, fmt.Append(nil, m.Header))
		count++
	}
	return count
}

// redis searches all keys of Redis and their values.
func (s *search) redis(at string) int {
	s.t.Helper()
	options, err := redis.ParseURL(at)
	if err != nil {
		s.t.Fatal(err)
	}
	c := redis.NewClient(options)
	defer c.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), timeout)
	defer cancel()
	keys := c.Scan(ctx, 0, "*", 1000).Iterator()
	count := 0
	for keys.Next(ctx) {
		key := keys.Val()
		count++
		s.in("a Redis key", []byte(key))
		var value any
		switch kind := c.Type(ctx, key).Val(); kind {
		case "string":
			value, err = c.Get(ctx, key).Result()
		case "hash":
			value, err = c.HGetAll(ctx, key).Result()
		case "none":
			continue // expired while we looked
		default:
			s.t.Errorf("Redis key %s is of kind %s, which is not searched", key, kind)
		}
		if err != nil && !errors.Is(err, redis.Nil) {
			s.t.Fatal(err)
		}
		s.in("Redis key "+key, fmt.Append(nil, value))
	}
	if err := keys.Err(); err != nil {
		s.t.Fatal(err)
	}
	return count
}

// secretsOfProcesses reads arguments and environments while git works for a deployment. With history it is
// the git program that asks Bitbucket, and waits for its answers.
func secretsOfProcesses(t *testing.T, s *shared) {
	site := s.site()
	repo := site.repository(t, "processes", "site")
	n := s.tenant(t, "processes")
	n.app("web", repo, "main")
	n.api.must("PATCH", n.path("/apps/web"), object{"source": object{"fullHistory": true}})
	secrets := s.secrets()
	look := newSearch(t, secrets)
	// A hook's environment is where its app's variables belong. The hooks of the scenario that planted one run beside.
	maps.DeleteFunc(secrets, func(what, _ string) bool { return strings.HasPrefix(what, variable+" ") })
	inHooks := newSearch(t, secrets)
	fault, err := site.Inject(t.Context(), emulator.Fault{Route: "git", Path: "/" + repo.name, Delay: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	n.api.must("POST", n.path("/apps/web/deployments"), object{})
	gits := map[int]bool{}
	testkit.Eventually(t, timeout, func() error {
		for _, p := range family(t, s.pids()) {
			look.in("the arguments of "+p.name, p.arguments)
			environments := look
			if bytes.Contains(p.environment, []byte("\x00DEVPILOT_WORKSPACE="+variableOwner+"\x00")) {
				environments = inHooks
			}
			environments.in("the environment of "+p.name, p.environment)
			if strings.HasPrefix(p.name, "git") {
				gits[p.pid] = true
			}
		}
		if list := n.deployments("web"); len(list) != 1 || list[0]["state"] != "COMPLETED" {
			return errors.New("the deployment is not complete: " + brief(list))
		}
		return nil
	})
	if err := site.RemoveFault(t.Context(), fault); err != nil {
		t.Fatal(err)
	}
	look.nothing()
	inHooks.nothing()
	if len(gits) == 0 {
		t.Error("no git process was seen")
	}
	t.Logf("%d git processes were read, %d KiB of arguments and environments", len(gits), (look.looked+inHooks.looked)>>10)
}

// relative is a process as its system shows it.
type relative struct {
	pid                    int
	name                   string
	arguments, environment []byte
}

// family lists processes and all their descendants; those that serve the emulator's side of git are
// not ours.
func family(t testing.TB, pids []int) []relative {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	parents, all := map[int]int{}, []int{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "stat"))
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // state, parent, …
		if len(fields) < 2 {
			continue
		}
		parents[pid], _ = strconv.Atoi(fields[1])
		all = append(all, pid)
	}
	var list []relative
	for _, pid := range all {
		ours := false
		for at, steps := pid, 0; at > 1 && !ours && steps < 20; at, steps = parents[at], steps+1 {
			ours = slices.Contains(pids, at)
		}
		if !ours {
			continue
		}
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		r := relative{pid: pid}
		r.arguments, _ = os.ReadFile(filepath.Join(dir, "cmdline")) // it may have ended
		r.environment, _ = os.ReadFile(filepath.Join(dir, "environ"))
		command, _, _ := strings.Cut(string(r.arguments), "\x00")
		r.name = filepath.Base(command)
		if bytes.Contains(r.environment, []byte("GATEWAY_INTERFACE=")) || len(r.arguments) == 0 {
			continue
		}
		list = append(list, r)
	}
	return list
}

func TestSearch_findsASecretInEveryForm(t *testing.T) {
	t.Parallel()
	short, long := "e2e+secret/of=32-characters-here", strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ/+", 10)
	for _, secret := range []string{short, long} {
		for form, text := range map[string]string{
			"plain":           "token " + secret + " end",
			"in a URL":        "https://example.test/?token=" + url.QueryEscape(secret),
			"basic":           base64.StdEncoding.EncodeToString([]byte("x-token-auth:" + secret)),
			"base64, shifted": base64.RawURLEncoding.EncodeToString([]byte("ab" + secret + "c")),
			"hexadecimal":     hex.EncodeToString([]byte("x" + secret)),
			"cut":             secret[:min(len(secret), 50)],
		} {
			look := newSearch(t, map[string]string{"the secret": secret})
			if look.in(form, []byte(text)); len(look.found) != 1 {
				t.Errorf("a secret of %d characters is not found %s", len(secret), form)
			}
		}
	}
	look := newSearch(t, map[string]string{"the secret": long})
	if look.in("nothing", []byte(strings.Repeat("nothing to see ", 100))); len(look.found) != 0 {
		t.Errorf("found %v where nothing is", look.found)
	}
}
