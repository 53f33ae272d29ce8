package emulator

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// journalLimit is how many requests the journal keeps.
const journalLimit = 20_000

// RequestRecord is one request as the emulator saw it. It holds no header: no credential can be in it.
type RequestRecord struct {
	ID       int64         `json:"id"`
	Time     time.Time     `json:"time"`
	Method   string        `json:"method"`
	Path     string        `json:"path"`  // escaped, no query
	Query    string        `json:"query"` // of REST API requests only
	Route    string        `json:"route"` // e.g. "GET /2.0/user"; empty for unknown paths
	Status   int           `json:"status"`
	Duration time.Duration `json:"duration"`
	Account  string        `json:"account"` // user name, empty for anonymous callers
	Fault    string        `json:"fault"`   // id of the fault that answered or delayed it
}

// Counters count since the start or the last reset.
type Counters struct {
	// Routes counts requests by route name, e.g. "GET /2.0/repositories/{workspace}".
	Routes map[string]int `json:"routes"`
	// Statuses counts them by route name and status, e.g. "GET /2.0/user 401".
	Statuses map[string]int `json:"statuses"`
	// Token endpoint: code exchanges that succeeded, refreshes that succeeded, were refused for a dead token, for a
	// wrong client, or because of a lock-out.
	CodeExchanges      int `json:"code_exchanges"`
	Refreshes          int `json:"refreshes"`
	RefreshesDead      int `json:"refreshes_dead"`
	RefreshesLockedOut int `json:"refreshes_locked_out"`
	ClientRefused      int `json:"client_refused"`
	// MostParallel is the highest number of REST API requests that were under way at one time.
	MostParallel int `json:"most_parallel"`
}

// journal is the request log and the counters.
type journal struct {
	mu       sync.Mutex
	nextID   int64
	records  []RequestRecord // oldest first
	counters Counters
	parallel int
}

func (j *journal) begin() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.parallel++
	j.counters.MostParallel = max(j.counters.MostParallel, j.parallel)
}

func (j *journal) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.parallel--
}

func (j *journal) add(record RequestRecord, status string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.nextID++
	record.ID = j.nextID
	if len(j.records) >= journalLimit {
		j.records = slices.Delete(j.records, 0, journalLimit/10)
	}
	j.records = append(j.records, record)
	if record.Route == "" {
		return
	}
	if j.counters.Routes == nil {
		j.counters.Routes, j.counters.Statuses = map[string]int{}, map[string]int{}
	}
	j.counters.Routes[record.Route]++
	j.counters.Statuses[record.Route+" "+status]++
}

func (j *journal) count(change func(*Counters)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(&j.counters)
}

func (j *journal) snapshot() Counters {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.counters
	c.Routes, c.Statuses = maps.Clone(c.Routes), maps.Clone(c.Statuses)
	if c.Routes == nil {
		c.Routes, c.Statuses = map[string]int{}, map[string]int{}
	}
	return c
}

func (j *journal) resetCounters() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counters = Counters{MostParallel: j.parallel}
}

// since lists records after an id whose route contains the text.
func (j *journal) since(after int64, route string) []RequestRecord {
	j.mu.Lock()
	defer j.mu.Unlock()
	found := []RequestRecord{}
	for _, record := range j.records {
		if record.ID > after && strings.Contains(record.Route, route) {
			found = append(found, record)
		}
	}
	return found
}

func (j *journal) clear() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = nil
}
