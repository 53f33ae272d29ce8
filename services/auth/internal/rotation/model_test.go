package rotation

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// The model explores every interleaving of a few processes that refresh one connection against a
// Bitbucket that rotates, within the bounds of a scenario. Processes may be stopped anywhere, be
// killed, lose answers; leases may be taken over at any moment, which includes the 30 s of
// production; the user may remove the integration or connect another account; time may pass. The
// processes call Acquire, StoreAnswer, RecordRefusal and RecordTrouble, which production calls too;
// each such call together with its write is one step, as the compare-and-set makes it one.
//
// One tick of the clock is ten minutes: Bitbucket's grace, the life of a spare and the first retry
// after a refusal.
type scenario struct {
	name      string
	processes int
	grace     bool // a spent token is honoured until the tick ends
	lockOut   bool // after a refusal every call is refused until the tick ends
	crash     bool
	lost      bool // an answer may be lost on its way
	user      bool // removes, or connects another account, once
	sameToken bool // Bitbucket does not rotate
	calls     int  // at Bitbucket
	leases    uint64
	ticks     int
	want      []string // the violations expected; none unless inherent
	// sabotage breaks a rule: it is handed what the write that ends an attempt would store.
	sabotage func(cur, next *authstorev1.Integration) *authstorev1.Integration
}

const (
	lostConnection = "LOST: connected, and no token in the record is honoured"
	wronglyGivenUp = "RECONNECT_REQUIRED, and nothing was revoked"
	resurrected    = "RESURRECTED: tokens of the old connection came back"
	stuck          = "STUCK: the good token is there and is never found"
)

type token struct{ account, n byte }

func (t token) id() []byte     { return []byte{t.account, t.n} }
func tokenOf(id []byte) token  { return token{id[0], id[1]} }
func (t token) String() string { return fmt.Sprintf("%d.%d", t.account, t.n) }
func (t token) before(o token) int {
	return int(t.account)*256 + int(t.n) - int(o.account)*256 - int(o.n)
}
func contains(s []token, t token) bool { return slices.Contains(s, t) }

// bitbucketModel is Bitbucket: the newest token of the account that is connected, the spent ones
// that grace still honours, and whether a refusal has locked the consumer out.
type bitbucketModel struct {
	newest token
	spent  []token
	locked bool
	next   byte
}

func (b bitbucketModel) honours(t token) bool {
	return t == b.newest || (t.account == b.newest.account && contains(b.spent, t))
}

type step byte

const (
	idle step = iota
	leased
	answered
	refused
	troubled
)

type process struct {
	at   step
	try  Attempt
	next int // index of the candidate to call with
	// born is the tick of the lease: a process that was stopped for longer than the 15 s that an
	// attempt may take sends nothing any more. began is the tick of the first call.
	born, began int
	got         token
}

type world struct {
	rec       *authstorev1.Integration // shared between worlds; never changed in place
	bitbucket bitbucketModel
	procs     []process
	tick      int
	calls     int
	userActed bool
}

var modelStart = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const modelTick = SpareLife

func (w world) now() time.Time { return modelStart.Add(time.Duration(w.tick) * modelTick) }

// mayTry is the gate of production: not before the retry time. Within a tick any moment will do.
func (w world) mayTry() bool {
	f := w.rec.GetFailure()
	return f == nil || f.GetRetryTime().AsTime().Before(w.now().Add(modelTick))
}

func (w world) with(i int, p process) world {
	w.procs = slices.Clone(w.procs)
	w.procs[i] = p
	return w
}

// key tells worlds apart; it holds all that decides what can still happen.
func (w world) key() string {
	b := make([]byte, 0, 256)
	num := func(v ...int64) {
		for _, n := range v {
			b = append(strconv.AppendInt(b, n, 36), ' ')
		}
	}
	tok := func(id []byte) { b = append(append(b, '#'), id...) }
	stamp := func(ts *timestamppb.Timestamp) { num(ts.GetSeconds() % 86400) }
	if r := w.rec; r != nil {
		b = append(append(b, r.GetConnectionId()...), r.GetLease().GetHolder()...)
		num(int64(r.GetLease().GetEpoch()), int64(r.GetEpoch()), bit(r.GetReconnectRequired()), bit(r.GetVerify()), bit(r.GetRefresh().GetRefused()))
		tok(r.GetRefresh().GetId())
		for _, s := range r.GetSpares() {
			tok(s.GetId())
			num(bit(s.GetLate()))
			stamp(s.GetExpireTime())
		}
		if f := r.GetFailure(); f != nil {
			num(int64(f.GetKind()), int64(f.GetAttempts()))
			stamp(f.GetRetryTime())
		}
		stamp(r.GetLastRefusalTime())
		for _, t := range r.GetRefusalTimes() {
			stamp(t)
		}
	}
	b = append(b, '|', w.bitbucket.newest.account, w.bitbucket.newest.n, w.bitbucket.next)
	for _, t := range w.bitbucket.spent {
		b = append(b, t.account, t.n)
	}
	num(bit(w.bitbucket.locked), int64(w.tick), int64(w.calls), bit(w.userActed))
	for _, p := range w.procs {
		b = append(b, '|', byte(p.at))
		if p.at != idle {
			b = append(append(b, p.try.ConnectionID...), p.got.account, p.got.n)
			num(int64(p.try.Epoch), bit(p.try.TookOver), int64(p.next), int64(p.born), int64(p.began))
			for _, c := range p.try.Candidates {
				tok(c.ID)
				num(bit(c.Late))
			}
		}
	}
	return string(b)
}

func bit(v bool) int64 {
	if v {
		return 1
	}
	return 0
}

func newConnection(id string, t token, now time.Time) *authstorev1.Integration {
	return &authstorev1.Integration{
		Workspace: "acme", ConnectionId: id, SuccessFingerprint: "f",
		Refresh: &authstorev1.RefreshToken{Id: t.id(), Sealed: t.id()},
		Access:  &authstorev1.AccessToken{Sealed: t.id()}, LastRefreshTime: timestamppb.New(now),
	}
}

// call is one request of a process to Bitbucket with its next candidate.
func (s scenario) call(w world, i int) (after world, what string, honoured bool) {
	p := w.procs[i]
	t := tokenOf(p.try.Candidates[p.next].ID)
	w.calls++
	if p.next == 0 {
		p.began = w.tick
	}
	if !w.bitbucket.honours(t) || w.bitbucket.locked {
		w.bitbucket.locked = s.lockOut
		p.next++
		if p.next == len(p.try.Candidates) {
			p.at = refused
		}
		return w.with(i, p), fmt.Sprintf("P%d spends %v: refused", i+1, t), false
	}
	p.at, p.got = answered, t
	if !s.sameToken {
		p.got = token{t.account, w.bitbucket.next}
		w.bitbucket.newest = p.got
		w.bitbucket.next++
		if s.grace && !contains(w.bitbucket.spent, t) {
			w.bitbucket.spent = append(slices.Clone(w.bitbucket.spent), t)
			slices.SortFunc(w.bitbucket.spent, token.before)
		}
	}
	return w.with(i, p), fmt.Sprintf("P%d spends %v, gets %v", i+1, t, p.got), true
}

// end is the write that ends an attempt.
func (s scenario) end(w world, i int) (world, string) {
	p := w.procs[i]
	var next *authstorev1.Integration
	var out Outcome
	switch p.at {
	case answered:
		next, out = StoreAnswer(w.rec, p.try, Answer{
			Spent: p.try.Candidates[p.next].ID, RefreshID: p.got.id(), Refresh: p.got.id(), Access: p.got.id(), Fingerprint: "f",
		}, w.now())
	case refused:
		next, out = RecordRefusal(w.rec, p.try, Refusal{Fingerprint: "f", Began: world{tick: p.began}.now()}, w.now())
	case troubled:
		next, out = RecordTrouble(w.rec, p.try, Trouble{Fingerprint: "f"}, w.now())
	case idle, leased:
		panic("no attempt to end")
	}
	if next != nil && s.sabotage != nil {
		next = s.sabotage(w.rec, next)
	}
	if next != nil {
		w.rec = next
	}
	names := map[Outcome]string{Dropped: "dropped", Stored: "stored", StoredBefore: "stored before", KeptAsSpare: "kept as spare", Recorded: "recorded", Overtaken: "overtaken"}
	return w.with(i, process{}), fmt.Sprintf("P%d ends: %s", i+1, names[out])
}

// steps calls yield for every step that the world can take.
func (s scenario) steps(w world, yield func(after world, what string)) {
	for i, p := range w.procs {
		switch {
		case p.at == idle:
			if w.rec != nil && w.mayTry() && w.calls < s.calls && w.rec.GetEpoch() < s.leases {
				a := w
				rec, at := Acquire(w.rec, fmt.Sprint("P", i+1), w.now(), AcquireOptions{})
				a.rec = rec
				yield(a.with(i, process{at: leased, try: at, born: w.tick}), fmt.Sprintf("P%d takes the lease", i+1))
			}
		case p.at == leased && p.born < w.tick:
			yield(w.with(i, process{at: troubled, try: p.try}), fmt.Sprintf("P%d is out of time", i+1))
		case p.at == leased:
			if w.calls < s.calls {
				a, what, honoured := s.call(w, i)
				yield(a, what)
				if s.lost && honoured {
					yield(a.with(i, process{at: troubled, try: p.try}), what+", answer lost")
				}
			}
		default:
			yield(s.end(w, i))
		}
		if s.crash && p.at != idle {
			yield(w.with(i, process{}), fmt.Sprintf("P%d killed", i+1))
		}
	}
	if s.user && !w.userActed && w.rec != nil {
		a := w
		a.userActed, a.rec = true, nil
		yield(a, "user removes")
		a.bitbucket = bitbucketModel{newest: token{2, 0}, next: w.bitbucket.next}
		a.rec = newConnection("second", token{2, 0}, w.now())
		yield(a, "user connects another account")
	}
	if w.tick < s.ticks {
		a := w
		a.tick++
		a.bitbucket.spent, a.bitbucket.locked = nil, false
		yield(a, "ten minutes pass")
	}
}

func tokensIn(rec *authstorev1.Integration) []token {
	all := []token{tokenOf(rec.GetRefresh().GetId())}
	for _, s := range rec.GetSpares() {
		all = append(all, tokenOf(s.GetId()))
	}
	return all
}

// violation checks one world; "" when it is well.
func (s scenario) violation(w world) string {
	if w.rec == nil {
		return ""
	}
	tokens := tokensIn(w.rec)
	if w.userActed && slices.ContainsFunc(tokens, func(t token) bool { return t.account == 1 }) {
		return resurrected
	}
	if slices.ContainsFunc(w.procs, func(p process) bool { return p.at != idle }) {
		return ""
	}
	good := slices.ContainsFunc(tokens, w.bitbucket.honours)
	switch {
	case w.rec.GetReconnectRequired() && (good || !w.userActed):
		return wronglyGivenUp
	case !w.rec.GetReconnectRequired() && !good:
		return lostConnection
	case contains(tokens, w.bitbucket.newest) && !s.recovers(w):
		return stuck
	}
	return ""
}

// recovers reports whether a single process that nothing disturbs finds the good token again.
func (s scenario) recovers(w world) bool {
	for range 8 {
		for !w.mayTry() {
			w.tick++
			w.bitbucket.spent, w.bitbucket.locked = nil, false
		}
		rec, at := Acquire(w.rec, "P1", w.now(), AcquireOptions{})
		w.rec = rec
		w = w.with(0, process{at: leased, try: at, born: w.tick})
		for w.procs[0].at == leased {
			w, _, _ = s.call(w, 0)
		}
		good := w.procs[0].at == answered
		if w, _ = s.end(w, 0); good {
			return w.rec.GetFailure() == nil && contains(tokensIn(w.rec)[:1], w.bitbucket.newest)
		}
	}
	return false
}

// explore walks all worlds, breadth first, and returns the shortest way into each violation.
func (s scenario) explore() (worlds int, found map[string]string) {
	type origin struct{ from, what string }
	first := token{1, 0}
	start := world{
		rec: newConnection("first", first, modelStart), bitbucket: bitbucketModel{newest: first, next: 1},
		procs: make([]process, s.processes),
	}
	seen := map[string]origin{start.key(): {}}
	queue := []world{start}
	found = map[string]string{}
	for len(queue) > 0 {
		w := queue[0]
		queue = queue[1:]
		key := w.key()
		if v := s.violation(w); v != "" && found[v] == "" {
			var way []string
			for k := key; seen[k].what != ""; k = seen[k].from {
				way = append(way, seen[k].what)
			}
			slices.Reverse(way)
			found[v] = strings.Join(way, "; ")
		}
		s.steps(w, func(after world, what string) {
			k := after.key()
			if _, ok := seen[k]; !ok {
				seen[k] = origin{key, what}
				queue = append(queue, after)
			}
		})
	}
	return len(seen), found
}
