package e2e

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

var allTrouble = flag.Bool("trouble.all", false, "tell all stories of trouble, not a selection")

// TestTrouble tells stories of trouble at Bitbucket to the built devpilot: a plane of Bitbucket (git, a
// class of REST calls, the token endpoint, the site, all of them, the deliveries), a fault of it, and
// each fault for three lengths of time. Every story has an app and an account of its own, or shares the
// account with others whose repositories are well. When a trouble is over, what should be live is, once,
// within a minute; the connection is as it was; what was rolled back stays so; and an app that no trouble
// is about was deployed all the time.
//
// Here runs a selection, and all of it with -trouble.all: make trouble.
func TestTrouble(t *testing.T) {
	t.Parallel()
	lengths, chosen := order[:2], selection
	if *allTrouble {
		lengths, chosen = order, nil
	}
	told := &report{}
	var grounds sync.WaitGroup
	for _, where := range slices.Sorted(maps.Keys(grounded)) {
		var stories []trouble
		for _, one := range grounded[where] {
			if chosen == nil || slices.Contains(chosen, one.name()) {
				stories = append(stories, one)
			}
		}
		if len(stories) > 0 {
			grounds.Go(func() { t.Run(where, func(t *testing.T) { tellAll(t, stories, lengths, told) }) })
		}
	}
	grounds.Wait()
	t.Logf("\n%s", told)
}

// selection is what runs with all other tests.
var selection = []string{"git 401", "git 404", "git 0000", "git 429", "deliveries lost", "deliveries doubled", "token reset", "everything 503"}

// length is how long a trouble lasts.
type length string

const (
	short  length = "short"  // one request, or one push
	medium length = "medium" // some seconds and two pushes
	long   length = "long"   // longer than any pause between tries; until a refusal is believed, where that can be
)

// order is that of the lengths.
var order = []length{short, medium, long}

const (
	mediumTrouble = 8 * time.Second
	longTrouble   = 45 * time.Second
	// longTokenTrouble lets the pauses between tries of a renewal grow as far as they do.
	longTokenTrouble = 3 * time.Minute
	// mostTrouble is longer than anything that is not found is doubted.
	mostTrouble = 4 * time.Minute
	// recovery is what all must be well within, after a trouble.
	recovery = time.Minute
	// usual is what a push takes at most on a quiet machine where nothing is wrong.
	usual = 15 * time.Second
)

// trouble is a plane of Bitbucket and what goes wrong there.
type trouble struct {
	plane, fault string
	// faults are injected for the repository, the account or both.
	faults []emulator.Fault
	ofRepo bool // about one repository; else about all that the account asks for
	// doubtful is what will be believed in the end.
	doubtful bool
}

func (x trouble) name() string { return x.plane + " " + x.fault }

// wrongs are the faults that every plane can have.
var wrongs = []struct {
	name     string
	fault    emulator.Fault
	doubtful bool
}{
	{"401", emulator.Fault{Status: 401}, true},
	{"404", emulator.Fault{Status: 404}, true},
	{"429", emulator.Fault{Status: 429, RetryAfter: 2 * time.Second}, false},
	{"503", emulator.Fault{Status: 503}, false},
	{"wrong body", emulator.Fault{Kind: emulator.FaultWrongBody}, true},
	{"truncated", emulator.Fault{Kind: emulator.FaultTruncated}, false},
	{"slow", emulator.Fault{Kind: emulator.FaultSlow, Delay: 3 * time.Second}, false},
	{"reset", emulator.Fault{Kind: emulator.FaultReset}, false},
}

// grounded are the stories by the installation that they run on: Bitbucket lets a consumer make 1,000
// calls an hour.
var grounded = func() map[string][]trouble {
	const one = "/2.0/repositories/{workspace}/{repository}"
	git := troubles("git", true, "git")
	git = append(git, trouble{plane: "git", fault: "0000", ofRepo: true, doubtful: true, faults: []emulator.Fault{{Kind: emulator.FaultFlush}}})
	for fault, kind := range map[string]emulator.FaultKind{
		"lost": emulator.FaultDropDelivery, "late": emulator.FaultLateDelivery, "doubled": emulator.FaultDuplicateDelivery, "reordered": emulator.FaultOutOfOrderDelivery,
	} {
		git = append(git, trouble{plane: deliveries, fault: fault, ofRepo: true, faults: []emulator.Fault{{Kind: kind, Delay: 5 * time.Second}}})
	}
	return map[string][]trouble{
		"git and deliveries": git,
		"repositories":       slices.Concat(troubles("repository", true, one), troubles("branches", true, one+"/refs/branches", one+"/refs/branches/{branch...}")),
		"hooks and statuses": slices.Concat(troubles("hooks", true, one+"/hooks", one+"/hooks/{hook}"), troubles("statuses", true, one+"/commit/{commit}/statuses/build")),
		"accounts":           slices.Concat(troubles("api", false, "api"), troubles("everything", false, "")),
		"tokens":             troubles(tokens, false, "oauth"),
		"site":               troubles(pages, false, "site"),
	}
}()

// Planes whose stories differ.
const (
	deliveries = "deliveries"
	tokens     = "token"
	pages      = "site"
)

func troubles(plane string, ofRepo bool, routes ...string) []trouble {
	var list []trouble
	for _, wrong := range wrongs {
		one := trouble{plane: plane, fault: wrong.name, ofRepo: ofRepo, doubtful: wrong.doubtful && plane == "git"}
		for _, route := range routes {
			fault := wrong.fault
			fault.Route = route
			one.faults = append(one.faults, fault)
		}
		list = append(list, one)
	}
	return list
}

// report is what came of each story.
type report struct {
	mu    sync.Mutex
	lines []string
}

func (r *report) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func (r *report) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(slices.Sorted(slices.Values(r.lines)), "\n")
}
