package store

import (
	"unique"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// appSummary and laneSummary are kept of every app, whatever room there is for the records.
type appSummary struct {
	generation int64
	serves     bool
}

type laneSummary struct {
	generation int64
	retired    bool
	last       int32 // the last deployment's number
	written    bool  // all that was decided stands in the deployments' records
	live       int32
	lost       bool // the server of the live release died
	kept       []keptSummary
}

func (l *laneSummary) find(number int32) *keptSummary {
	for i := range l.kept {
		if l.kept[i].number == number {
			return &l.kept[i]
		}
	}
	return nil
}

type keptSummary struct {
	number int32
	// decided tells that the release's own file says whether it is served; else the app does.
	decided, serves bool
	server          unique.Handle[string]
}

func summarizeApp(a *storev1.App) *appSummary {
	return &appSummary{generation: a.GetGeneration(), serves: a.GetServe().GetDirectory() != ""}
}

func summarizeLane(l *storev1.Lane) *laneSummary {
	s := &laneSummary{generation: l.GetGeneration(), retired: l.GetRetired()}
	if l.GetRetired() {
		return s
	}
	s.last, s.written = l.GetLastNumber(), len(l.GetOutbox()) == 0
	s.live, s.lost = l.GetLive().GetNumber(), l.GetLive().GetLost()
	for _, k := range l.GetKept() {
		s.kept = append(s.kept, keptSummary{
			number: k.GetNumber(), decided: k.GetServe() != nil, serves: k.GetServe().GetDirectory() != "", server: unique.Make(k.GetServer()),
		})
	}
	return s
}

// Place is where a release of an app is served.
type Place struct {
	// Server is the server that has it; empty where nothing is served.
	Server string
	// Moving says that its server died, and that it is deployed on another one at the moment: nobody has it.
	Moving bool
}

// ServedOn is the server whose workers answer for a release of an app, 0 being the live one: the one that
// has it, and for a release that is not kept the one that has the live one. It is empty where nothing is
// served. It asks no store. It is not ok while that is not known: before the copies were filled once, and
// where there are more apps than they may hold.
func (c *Copies) ServedOn(key string, number int32) (p Place, ok bool) {
	a, known := c.Apps.Latest(key)
	l, alsoKnown := c.Lanes.Latest(key)
	if !known || !alsoKnown {
		return p, false
	}
	app, isApp := a.(*appSummary)
	lane, isLane := l.(*laneSummary)
	if !isApp || !isLane || app.generation != lane.generation {
		return p, true
	}
	k := lane.find(number)
	if k == nil {
		k = lane.find(lane.live)
	}
	if k == nil || k.decided && !k.serves || !k.decided && !app.serves {
		return p, true
	}
	if lane.lost && k.number == lane.live {
		return Place{Moving: true}, true
	}
	return Place{Server: k.server.Value()}, true
}

// History is where an app's history ends: what the copy of lanes keeps beside each lane.
type History struct {
	Generation int64
	Last       int32 // 0: no deployment
	// Written tells that the records of the deployments have all that was decided.
	Written bool
}

// HistoryOf reads it from a summary that the copy of lanes made; not ok where there is none.
func HistoryOf(summary any) (h History, ok bool) {
	l, ok := summary.(*laneSummary)
	if !ok {
		return History{}, false
	}
	return History{Generation: l.generation, Last: l.last, Written: l.written}, true
}
