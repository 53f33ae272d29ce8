package hosting

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// coding is a content coding, RFC 9110 section 8.4.1.
type coding string

const (
	brotliCoding coding = "br"
	zstdCoding   coding = "zstd"
	gzipCoding   coding = "gzip"
)

// codings we have, the best first; ext is that of a file compressed beforehand.
var codings = []struct {
	name coding
	ext  string
	fly  bool // also made here; brotli is not: as small as zstd at ten times the work
}{
	{brotliCoding, ".br", false},
	{zstdCoding, ".zst", true},
	{gzipCoding, ".gz", true},
}

// option is one way to answer.
type option struct {
	coding coding
	ext    string // of the file beside; empty: compress here
	q      int    // thousandths
	rank   int
}

// options lists the ways to answer that a client prefers to the plain file, the best first: by its own
// weights, then files compressed beforehand, then as codings lists them (RFC 9110 section 12.5.3). An
// empty list means the plain file, which is also sent when it was refused and nothing else can be had.
func options(h http.Header) []option {
	accepted := acceptedCodings(h.Values("Accept-Encoding"))
	if len(accepted) == 0 {
		return nil
	}
	var list []option
	for rank, c := range codings {
		q, ok := accepted[string(c.name)]
		if !ok {
			q = accepted["*"]
		}
		if q == 0 || q < accepted["identity"] {
			continue
		}
		list = append(list, option{c.name, c.ext, q, rank})
		if c.fly {
			list = append(list, option{c.name, "", q, rank + len(codings)})
		}
	}
	slices.SortStableFunc(list, func(a, b option) int { return cmp.Or(b.q-a.q, a.rank-b.rank) })
	return list
}

// acceptedCodings reads the header's weights in thousandths; malformed members are left out.
func acceptedCodings(values []string) map[string]int {
	var accepted map[string]int
	for _, value := range values {
		for member := range strings.SplitSeq(value, ",") {
			name, parameters, _ := strings.Cut(member, ";")
			name = strings.ToLower(strings.TrimSpace(name))
			q, ok := weight(parameters)
			if name == "" || !ok {
				continue
			}
			if name == "x-gzip" { // RFC 9110 section 8.4.1.3
				name = "gzip"
			}
			if accepted == nil {
				accepted = make(map[string]int, 4)
			}
			accepted[name] = q
		}
	}
	return accepted
}

// weight reads "q=0.5"; without it the weight is 1.
func weight(parameters string) (int, bool) {
	parameters = strings.TrimSpace(parameters)
	if parameters == "" {
		return 1000, true
	}
	name, value, _ := strings.Cut(parameters, "=")
	if !strings.EqualFold(strings.TrimSpace(name), "q") {
		return 0, false
	}
	value = strings.TrimSpace(value)
	if len(value) > 5 { // 0.123
		return 0, false
	}
	q, err := strconv.ParseFloat(value, 64)
	if err != nil || !(q >= 0 && q <= 1) {
		return 0, false
	}
	return int(q*1000 + 0.5), true
}
