package lane

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"sort"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// A lane holds the heads that were noted last. It is written too often to hold all branches of a
// pattern and all tags, so SeenRefs holds those. A decision always goes to the lane first; its head
// moves to SeenRefs when the lane is crowded, or at the next poll of the repository. A head leaves
// the lane only once SeenRefs has it, so that no head is forgotten.

// MaxRefs is how many branches, and how many tags, an app's SeenRefs holds: 420 KB of each.
const MaxRefs = 15_000

// An entry of SeenSet.refs.
const (
	nameBytes = 8
	hashBytes = 20
	refBytes  = nameBytes + hashBytes
)

type (
	refName [nameBytes]byte
	refHash [hashBytes]byte
)

func nameOf(name string) (n refName) {
	sum := sha256.Sum256([]byte(name))
	copy(n[:], sum[:])
	return n
}

// hashOf is zero for what is no commit.
func hashOf(hash string) (h refHash) {
	if b, err := hex.DecodeString(hash); err == nil && len(b) == hashBytes {
		copy(h[:], b)
	}
	return h
}

func (h refHash) String() string {
	if h == (refHash{}) {
		return ""
	}
	return hex.EncodeToString(h[:])
}

// lookup finds a ref in a packed list.
func lookup(refs []byte, n refName) (hash refHash, there bool) {
	at := func(i int) []byte { return refs[i*refBytes : (i+1)*refBytes] }
	count := len(refs) / refBytes
	i := sort.Search(count, func(i int) bool { return bytes.Compare(at(i)[:nameBytes], n[:]) >= 0 })
	if i == count || !bytes.Equal(at(i)[:nameBytes], n[:]) {
		return refHash{}, false
	}
	return refHash(at(i)[nameBytes:]), true
}

func unpack(refs []byte) map[refName]refHash {
	out := make(map[refName]refHash, len(refs)/refBytes)
	for ; len(refs) >= refBytes; refs = refs[refBytes:] {
		out[refName(refs)] = refHash(refs[nameBytes:])
	}
	return out
}

func pack(refs map[refName]refHash) []byte {
	names := make([]refName, 0, len(refs))
	for n := range refs {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b refName) int { return bytes.Compare(a[:], b[:]) })
	out := make([]byte, 0, len(names)*refBytes)
	for _, n := range names {
		h := refs[n]
		out = append(append(out, n[:]...), h[:]...)
	}
	return out
}

// Known is what a lane and its SeenRefs know together. The lane must have been read first.
type Known struct {
	Repository string
	Lane       *storev1.Lane
	Seen       *storev1.SeenRefs
}

// Head returns the commit at which a branch or tag was seen last. The hash is empty when it was
// seen not to exist. known is false when nothing was noted about it; if everything of its kind was
// noted ([Complete]), it did not exist then.
func (k Known) Head(r Ref) (hash string, known bool) {
	if h := k.Lane.GetHeads()[string(r)]; h != nil && h.GetRepository() == k.Repository {
		return h.GetHash(), h.GetSource() != storev1.Head_FORGOTTEN
	}
	h, known := lookup(valid(k.Seen, k.Lane, r.IsTag()).GetRefs(), nameOf(r.Name()))
	return h.String(), known
}

// Complete tells whether a poll noted all branches, or tags, that match the patterns.
func (k Known) Complete(tags bool, patterns []string) bool {
	return len(patterns) > 0 && slices.Equal(valid(k.Seen, k.Lane, tags).GetPatterns(), patterns)
}

// Lacks tells whether a poll that found these branches, or tags, misses some that were seen.
func (k Known) Lacks(tags bool, found map[string]string) bool {
	there := make(map[refName]bool, len(found))
	for name := range found {
		there[nameOf(name)] = true
	}
	for r, h := range k.Lane.GetHeads() { // what the lane itself holds is newer, and compared by itself
		if h.GetRepository() == k.Repository && Ref(r).IsTag() == tags {
			there[nameOf(Ref(r).Name())] = true
		}
	}
	for n, hash := range unpack(valid(k.Seen, k.Lane, tags).GetRefs()) {
		if hash != (refHash{}) && !there[n] {
			return true
		}
	}
	return false
}

// Nothing tells whether SeenRefs has no branch and no tag that exists.
func (k Known) Nothing() bool {
	for _, tags := range []bool{false, true} {
		for b := valid(k.Seen, k.Lane, tags).GetRefs(); len(b) >= refBytes; b = b[refBytes:] {
			if refHash(b[nameBytes:refBytes]) != (refHash{}) {
				return false
			}
		}
	}
	return true
}

// valid returns the branches, or tags, of SeenRefs if they belong to the lane's present baseline,
// and an empty set otherwise.
func valid(s *storev1.SeenRefs, l *storev1.Lane, tags bool) *storev1.SeenSet {
	set, baseline := s.GetBranches(), l.GetBranchBaseline()
	if tags {
		set, baseline = s.GetTags(), l.GetTagBaseline()
	}
	if set.GetBaseline() != baseline {
		return &storev1.SeenSet{Baseline: baseline}
	}
	return set
}

// Fold returns SeenRefs with all heads of the lane, and false where it has them.
func Fold(s *storev1.SeenRefs, l *storev1.Lane) (*storev1.SeenRefs, bool) {
	if s.GetSeq() >= l.GetHeadSeq() {
		return s, false
	}
	fold := func(tags bool) *storev1.SeenSet {
		set := valid(s, l, tags)
		return withHeads(set, set.GetPatterns(), unpack(set.GetRefs()), l, tags)
	}
	return &storev1.SeenRefs{Seq: l.GetHeadSeq(), Branches: fold(false), Tags: fold(true)}, true
}

// Found is what a poll found of branches, or of tags.
type Found struct {
	// Patterns are those whose matches were all asked for; none where only the head of one branch was.
	Patterns []string
	// Heads are those that there are, by name.
	Heads map[string]string
	// Time is when, and Doubt for how long what was known and is not found must stay away to be gone.
	Time  time.Time
	Doubt time.Duration
}

// Polled returns SeenRefs after a poll. It has what was found where nothing was known (the
// baseline) and the lane's heads, and no longer what has been gone for long enough. A head that
// differs from the known one keeps its known value until the lane has decided about it.
func Polled(s *storev1.SeenRefs, l *storev1.Lane, branches, tags Found) *storev1.SeenRefs {
	note := func(f Found, tags bool) *storev1.SeenSet {
		set := valid(s, l, tags)
		complete := slices.Equal(set.GetPatterns(), f.Patterns)
		refs := make(map[refName]refHash, len(f.Heads))
		for name, hash := range f.Heads {
			n := nameOf(name)
			if was, known := lookup(set.GetRefs(), n); known {
				refs[n] = was
			} else if !complete {
				refs[n] = hashOf(hash)
			}
		}
		next := &storev1.SeenSet{Baseline: set.GetBaseline()}
		if complete && len(f.Patterns) > 0 {
			absent(next, set, refs, f)
		}
		return withHeads(next, f.Patterns, refs, l, tags)
	}
	return &storev1.SeenRefs{Seq: l.GetHeadSeq(), Branches: note(branches, false), Tags: note(tags, true)}
}

// absent keeps branches and tags that were known and not found, until they have been missing for
// long enough, because an answer may leave things out. When some are missing already, those that
// join them start their own time after them.
func absent(next, set *storev1.SeenSet, refs map[refName]refHash, f Found) {
	missed, still := map[refName]refHash{}, map[refName]refHash{}
	for n, hash := range unpack(set.GetRefs()) {
		if _, there := refs[n]; !there && hash != (refHash{}) {
			missed[n] = hash
		}
	}
	for b := set.GetAbsent(); len(b) >= nameBytes; b = b[nameBytes:] {
		if hash, ok := missed[refName(b)]; ok {
			still[refName(b)] = hash
		}
	}
	since := set.GetAbsentTime().AsTime()
	gone := f.Time.Sub(since) >= f.Doubt
	switch {
	case f.Doubt == 0:
		return
	case len(still) > 0 && gone:
		for n := range still {
			delete(missed, n)
		}
		still, since = missed, f.Time
	case len(still) == 0:
		still, since = missed, f.Time
	}
	maps.Copy(refs, missed)
	if len(still) > 0 {
		next.Absent, next.AbsentTime = names(still), timestamppb.New(since)
	}
}

func names(refs map[refName]refHash) []byte {
	var out []byte
	for _, n := range slices.SortedFunc(maps.Keys(refs), func(a, b refName) int { return bytes.Compare(a[:], b[:]) }) {
		out = append(out, n[:]...)
	}
	return out
}

// withHeads adds the lane's heads to refs. If there are more than fit, only the lane's heads are
// kept, and the next poll notes the others anew.
func withHeads(set *storev1.SeenSet, patterns []string, refs map[refName]refHash, l *storev1.Lane, tags bool) *storev1.SeenSet {
	if len(refs)+len(l.GetHeads()) > MaxRefs {
		refs, patterns = map[refName]refHash{}, nil
	}
	for r, h := range l.GetHeads() {
		switch ref := Ref(r); {
		case ref.IsTag() != tags:
		case h.GetSource() == storev1.Head_FORGOTTEN:
			delete(refs, nameOf(ref.Name()))
		default:
			refs[nameOf(ref.Name())] = hashOf(h.GetHash())
		}
	}
	return &storev1.SeenSet{Baseline: set.GetBaseline(), Patterns: patterns, Refs: pack(refs), Absent: set.GetAbsent(), AbsentTime: set.GetAbsentTime()}
}

// Folded notes that SeenRefs has all heads of the lane, and tells whether the lane did not know.
func Folded(l *storev1.Lane) bool {
	if l.GetFoldedSeq() >= l.GetHeadSeq() {
		return false
	}
	l.FoldedSeq = l.GetHeadSeq()
	thin(l)
	return true
}

// Crowded tells whether the lane's heads have to be put into SeenRefs.
func Crowded(l *storev1.Lane) bool {
	unfolded := 0
	for _, h := range l.GetHeads() {
		if h.GetSeq() > l.GetFoldedSeq() {
			unfolded++
		}
	}
	return unfolded > maxUnfolded
}
