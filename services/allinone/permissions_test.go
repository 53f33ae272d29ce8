package allinone_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/allinone"
)

// documented are the names in the first column of a table of REFERENCE.md, which is made from the code.
func documented(t *testing.T, heading string) (names []string) {
	t.Helper()
	text, err := os.ReadFile("../REFERENCE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("REFERENCE.md has no %s", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if name, rest, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "`"); ok && strings.HasPrefix(rest, " |") {
			names = append(names, name)
		}
	}
	return names
}

func services(t *testing.T, i stream.Installation) map[string]stream.Permissions {
	t.Helper()
	users := map[string]stream.Permissions{}
	for _, user := range allinone.NATSUsers(i) {
		users[user.Name] = user.Permissions
	}
	return users
}

// Every bucket and stream that the code opens is some service's, and each bucket one's alone: who adds one without saying
// whose it is finds out here.
func TestNATSUsers_eachBucketHasOneOwner(t *testing.T) {
	users := services(t, "")
	buckets := documented(t, "Buckets")
	if len(buckets) < 40 {
		t.Fatalf("REFERENCE.md lists %d buckets", len(buckets))
	}
	for _, bucket := range buckets {
		var owners []string
		for _, name := range []string{"auth", "webhook", "deployer", "gateway"} {
			may := users[name].Publish
			touches := slices.ContainsFunc(may, func(pattern string) bool {
				return pattern == "$KV."+bucket+".>" || strings.Contains(pattern+".", ".KV_"+bucket+".")
			})
			if touches != stream.Allows(may, "$KV."+bucket+".key") {
				t.Errorf("%s may do a part of what there is to do with %s", name, bucket)
			}
			if touches {
				owners = append(owners, name)
			}
		}
		if want := 1; bucket != installation.Bucket && len(owners) != want || bucket == installation.Bucket && len(owners) != 4 {
			t.Errorf("%s belongs to %v: name it in the access.go of its service", bucket, owners)
		}
	}
	for _, name := range documented(t, "Streams") {
		if name == "DEVPILOT_CANARY" { // of the embedded server
			continue
		}
		maker := "devpilot"
		if name == installation.RestoreStream { // of devpilot restore
			maker = allinone.Operator
		}
		if !stream.Allows(users[maker].Publish, "$JS.API.STREAM.CREATE."+name) {
			t.Errorf("%s may not make %s", maker, name)
		}
		for user, may := range users {
			if name == installation.RestoreStream && !stream.Allows(may.Publish, "$JS.API.STREAM.INFO."+name) {
				t.Errorf("%s may not look whether a restore is not whole", user)
			}
		}
	}
}

// Of two installations in one account none may do anything with what the other has.
func TestNATSUsers_installationsKeepApart(t *testing.T) {
	for _, mine := range allinone.NATSUsers("acme") {
		for _, other := range allinone.NATSUsers("beta") {
			if mine.Name == allinone.Operator || other.Name == allinone.Operator {
				continue
			}
			for _, side := range [][2][]string{{mine.Publish, other.Publish}, {mine.Subscribe, other.Subscribe}} {
				for _, subject := range side[1] {
					if strings.Contains(subject, "beta") && stream.Allows(side[0], subject) {
						t.Errorf("%s of acme may %s", mine.Name, subject)
					}
				}
			}
		}
	}
}

// What is shipped is what the program prints.
func TestPrintPermissions_shipped(t *testing.T) {
	var b bytes.Buffer
	if err := allinone.PrintPermissions(&b, allinone.PermissionSettings{}); err != nil {
		t.Fatal(err)
	}
	shipped, err := os.ReadFile("../../deploy/nats/permissions.conf")
	if err != nil || !bytes.Equal(shipped, b.Bytes()) {
		t.Errorf("deploy/nats/permissions.conf is not what devpilot nats-permissions prints: make generate (%v)", err)
	}
	err = allinone.PrintPermissions(&b, allinone.PermissionSettings{InstallationFlags: servicemain.InstallationFlags{Installation: "No"}})
	if err == nil || !strings.Contains(err.Error(), "DEVPILOT_INSTALLATION") {
		t.Errorf("a name that is none: %v", err)
	}
}

// The configuration that is shipped is one that nats-server takes, once it has keys, and gives each user its own.
func TestNATSConfiguration_shipped(t *testing.T) {
	text, err := os.ReadFile("../../deploy/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	conf, keys := string(text), map[string]string{}
	for _, name := range []string{"auth", "webhook", "deployer", "gateway", allinone.Operator} {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		public, err := pair.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		keys[public] = name
		conf = strings.Replace(conf, "nkey: U"+strings.ToUpper(name)+",", "nkey: "+public+",", 1)
	}
	dir := t.TempDir()
	permissions, err := os.ReadFile("../../deploy/nats/permissions.conf")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"nats.conf": conf, "permissions.conf": string(permissions)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	opts, err := server.ProcessConfigFile(filepath.Join(dir, "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if len(opts.Nkeys) != len(keys) || !opts.SyncAlways {
		t.Errorf("%d users of %d, sync_interval always: %v", len(opts.Nkeys), len(keys), opts.SyncAlways)
	}
	users := services(t, "")
	for _, user := range opts.Nkeys {
		want := users[keys[user.Nkey]]
		if user.Permissions == nil || !slices.Equal(user.Permissions.Publish.Allow, want.Publish) || !slices.Equal(user.Permissions.Subscribe.Allow, want.Subscribe) {
			t.Errorf("%s has other permissions than are its own", keys[user.Nkey])
		}
	}
}
