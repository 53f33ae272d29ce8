package e2e

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/allinone"
)

var (
	speedBefore = flag.String("speed.before", "", "a devpilot program built earlier, measured beside this one in the same run")
	speedPprof  = flag.String("speed.pprof", "", "a directory to write the product's CPU profiles to, one for each load, and the system calls that were counted")
	speedRows   = flag.String("speed.rows", ".", "which rows to measure, as a regular expression")
)

// speedRow is one question about the product's speed, asked of the product from outside.
type speedRow struct {
	name   string
	run    func(p *timed) []figure
	traced bool // it counts system calls
}

// figure is one measured value; goal says what is wanted of it.
type figure struct {
	name  string
	value float64
	unit  string
	goal  string
}

var speedTable = []speedRow{
	{"burst", burstBesideAPush, false},
	{"routing", routingKeepsUp, false},
	{"minute", routingKeepsUpForAMinute, false},
	{"ingest", ingestBesidePlainServer, false},
	{"webhook", ingestBesideWebhook, false},
	{"writes", writesOfADelivery, true},
	{"stall", stalledGits, false},
	{"read", readsBesidePlainServer, false},
	{"many", manyApps, false},
	{"filter", emptyFilter, false},
	{"creates", writesOfAnApp, true},
	{"idle", idleCost, false},
	{"starts", idleCalls, true},
	{"thousands", thousandsOfApps, false},
	{"repeat", repeatBesideClone, false},
	{"steps", stepsOfADeployment, true},
	{"shared", appsOfOneRepository, false},
	{"twenty", twentyRepositories, false},
	{"large", largeRepository, false},
	{"log", tailOfALongLog, false},
}

// BenchmarkSpeed prints the table of CONTRIBUTING.md: every row on a fresh installation of the built
// product, with data on the disk of the temporary directory and the emulator in this process. With
// -speed.before each row is measured on that program too, right before.
func BenchmarkSpeed(b *testing.B) {
	wanted, err := regexp.Compile(*speedRows)
	if err != nil {
		b.Fatal(err)
	}
	type line struct {
		row string
		figure
		values [2]string
	}
	programs := []string{*speedBefore, program(b, "devpilot")}
	var lines []*line
	for _, row := range speedTable {
		if !wanted.MatchString(row.name) {
			continue
		}
		for i, path := range programs {
			if path == "" {
				continue
			}
			b.Run(fmt.Sprintf("%s/%s", row.name, [2]string{"before", "now"}[i]), func(b *testing.B) {
				calls := ""
				if row.traced {
					path, calls = traced(b, path)
				}
				p := startTimed(b, path)
				p.calls = calls
				for _, f := range row.run(p) {
					b.ReportMetric(f.value, strings.ReplaceAll(f.name+" "+f.unit, " ", "_"))
					at := slices.IndexFunc(lines, func(l *line) bool { return l.row == row.name && l.name == f.name })
					if at < 0 {
						lines, at = append(lines, &line{row: row.name, figure: f}), len(lines)
					}
					lines[at].values[i] = fmt.Sprintf("%.4g %s", f.value, f.unit)
				}
			})
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "\nwhat\tbefore\tnow\tgoal")
	for _, l := range lines {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.name, l.values[0], l.values[1], l.goal)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
}

// timed is an installation that is measured.
type timed struct {
	*tenant
	b        *testing.B
	daemon   *daemon
	dir      string
	redis    redis.UniversalClient
	repos    []repository // of createApps
	profiles int          // taken
	calls    string       // the file of its system calls; empty where they are not written down
}

// startTimed starts a program with a workspace that is connected.
func startTimed(b *testing.B, path string) *timed {
	b.Helper()
	bucket := openSite(b)
	bucket.inProcess(b)
	dir, cache := filepath.Join(b.TempDir(), "data"), testkit.RealRedis(b)
	d, address := startDaemonOf(b, path, dir,
		"DEVPILOT_BITBUCKET_CLIENT_ID="+consumer.Key, "DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE="+secretFile(b),
		"DEVPILOT_BITBUCKET_SITE_URL="+bucket.address, "DEVPILOT_BITBUCKET_API_URL="+bucket.address+"/2.0", "DEVPILOT_LOG_LEVEL=warn", "DEVPILOT_PPROF=true", "DEVPILOT_REDIS_URL="+cache.URL())
	if err := bucket.SetCallbackURL(b.Context(), address+"/oauth/bitbucket/callback"); err != nil {
		b.Fatal(err)
	}
	token, err := allinone.ReadAdminToken(dir)
	if err != nil {
		b.Fatal(err)
	}
	s := &shared{stack: &outside{daemon: d, bucket: bucket, address: address, token: token.Reveal()}, planted: map[string]string{}}
	s.owner = newBrowser(b, address).signIn(token.Reveal())
	return &timed{tenant: s.tenant(b, "speed"), b: b, daemon: d, dir: dir, redis: cache.Client()}
}

// cpu is what the product's process and the programs that it started and that ended have used so far.
func (p *timed) cpu() time.Duration {
	p.b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.daemon.cmd.Process.Pid))
	if err != nil {
		p.b.Fatal(err)
	}
	// The name in parentheses may hold spaces; utime and stime are the 12th and 13th field after it.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:15] { // user, system, and both of children that were waited for
		var n int64
		if _, err := fmt.Sscan(f, &n); err != nil {
			p.b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// profiled takes a profile of the product while something is measured, for so long from its beginning on, if
// asked to. What it returns waits for the profile.
func (p *timed) profiled(during time.Duration) (wait func()) {
	p.b.Helper()
	if *speedPprof == "" {
		return func() {}
	}
	p.profiles++
	file := p.profileName("pprof")
	var done sync.WaitGroup
	done.Go(func() {
		resp, err := http.Get(fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", p.daemon.ops, int(during.Seconds())))
		if err != nil {
			p.b.Error(err)
			return
		}
		if err := os.WriteFile(file, []byte(readAll(p.b, resp)), 0o600); err != nil {
			p.b.Error(err)
		}
	})
	return done.Wait
}

func (p *timed) profileName(kind string) string {
	return filepath.Join(*speedPprof, fmt.Sprintf("%s-%d.%s", strings.ReplaceAll(p.b.Name(), "/", "-"), p.profiles, kind))
}

// median is in milliseconds.
func median(d []time.Duration) float64 { return quantile(d, 0.5) }

func quantile(d []time.Duration, q float64) float64 {
	d = slices.Clone(d)
	slices.Sort(d)
	return float64(d[min(len(d)-1, int(q*float64(len(d))))].Microseconds()) / 1000
}
