package allinone

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/pkg/transport"
)

const aDay = 24 * time.Hour

// made runs the command and opens what it made, as the services do.
func made(t *testing.T, dir, ca string, now time.Time) map[string]*transport.Certificate {
	t.Helper()
	var out bytes.Buffer
	if err := MakeCertificates(&out, CertificateSettings{Directory: dir, Days: 90, CA: ca}, now); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "PRIVATE") {
		t.Errorf("it prints a key: %s", out.String())
	}
	all := map[string]*transport.Certificate{}
	for _, service := range testkit.Services {
		f := transport.Files{Certificate: filepath.Join(dir, service, "tls.crt"), Key: filepath.Join(dir, service, "tls.key"), Authorities: filepath.Join(dir, service, "ca.crt")}
		c, err := transport.Open(transport.Config{Files: f, Service: service, Logger: testkit.Logger(t).Logger, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatalf("%s: %v", service, err)
		}
		all[service] = c
		if entries, err := os.ReadDir(filepath.Join(dir, service)); err != nil || len(entries) != 3 {
			t.Errorf("%s is given %v, %v", service, entries, err)
		}
		if info, err := os.Stat(f.Key); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", service, info, err)
		}
	}
	return all
}

func TestMakeCertificates_renewsAndChangesTheAuthorityWithoutAGap(t *testing.T) {
	t.Parallel()
	dir, now := filepath.Join(t.TempDir(), "certificates"), time.Now()
	authorities := func(service string) int {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, service, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "BEGIN CERTIFICATE")
	}
	first := made(t, dir, "add", now)["auth"].Ends() // there is nothing yet that it could be added to
	if left := first.Sub(now); left < 89*aDay || left > 90*aDay || authorities("auth") != 1 {
		t.Errorf("valid for %s, %d authorities", left, authorities("auth"))
	}
	renewed := made(t, dir, "keep", now.Add(time.Hour))
	if !renewed["auth"].Ends().After(first) || authorities("auth") != 1 {
		t.Errorf("it ends %s, %d authorities", renewed["auth"].Ends(), authorities("auth"))
	}
	// The new authority is known before anything is by it.
	if added := made(t, dir, "add", now.Add(time.Hour)); !added["auth"].Ends().Equal(renewed["auth"].Ends()) || authorities("gateway") != 2 {
		t.Errorf("it ends %s, %d authorities", added["auth"].Ends(), authorities("gateway"))
	}
	err := MakeCertificates(&bytes.Buffer{}, CertificateSettings{Directory: dir, Days: 90, CA: "forget"}, now)
	if err == nil || !strings.Contains(err.Error(), "still by an authority that would be forgotten") || authorities("gateway") != 2 {
		t.Errorf("%v, %d authorities", err, authorities("gateway"))
	}
	if third := made(t, dir, "keep", now.Add(2*time.Hour)); !third["auth"].Ends().After(renewed["auth"].Ends()) || authorities("gateway") != 2 {
		t.Errorf("it ends %s, %d authorities", third["auth"].Ends(), authorities("gateway"))
	}
	made(t, dir, "forget", now.Add(2*time.Hour))
	if authorities("gateway") != 1 {
		t.Errorf("%d authorities", authorities("gateway"))
	}
}

func TestMakeCertificates_saysThatTheAuthorityEnds(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	made(t, dir, "keep", now.Add(-authorityLife+200*aDay))
	var out bytes.Buffer
	if err := MakeCertificates(&out, CertificateSettings{Directory: dir, Days: 365, CA: "keep"}, now); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "The authority ends "+now.Add(200*aDay).UTC().Format(time.DateOnly)+": run this with --ca=add") {
		t.Errorf("%s", out.String())
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if err := MakeCertificates(&out, CertificateSettings{Directory: dir, Days: 365, CA: "keep"}, now); err == nil || !strings.Contains(err.Error(), "the authority's key") {
		t.Errorf("without its key: %v", err)
	}
}
