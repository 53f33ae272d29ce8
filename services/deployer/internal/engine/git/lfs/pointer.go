package lfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxPointer is what a pointer is smaller than (the LFS specification, "The Pointer").
const maxPointer = 1024

// pointer is what a file holds whose content is kept by LFS.
type pointer struct {
	oid  string // sha256 of the content, in hex
	size int64
}

var (
	pointerVersions = []string{"https://git-lfs.github.com/spec/v1", "https://hawser.github.com/spec/v1", "http://git-media.io/v/2"}
	pointerKeys     = []string{"version", "oid", "size"}
	extensionKey    = regexp.MustCompile(`^ext-[0-9]-\w+`)
	likePointer     = regexp.MustCompile(`git-lfs|hawser|git-media`)
)

// errExtension says that a pointer is one, and that a program of its author's changed the content.
var errExtension = errors.New("lfs: a pointer with an extension")

// errNoPointer says that a text is no pointer.
var errNoPointer = errors.New("lfs: no pointer")

// decodePointer reads a pointer as git-lfs's own reader does: space around it, empty lines and
// carriage returns before line ends do not count, and the versions before the first have their names.
// It is stricter in what no program writes: capitals in a hash, signs and leading zeros of a size.
func decodePointer(b []byte) (p pointer, err error) {
	if len(b) >= maxPointer {
		return p, errNoPointer
	}
	var values []string
	extended := false
	for line := range strings.SplitSeq(string(bytes.TrimSpace(b)), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" {
			continue
		}
		key, value, ok := strings.Cut(line, " ")
		switch {
		case !ok || len(values) == len(pointerKeys):
			return p, errNoPointer
		case key == pointerKeys[len(values)]:
			values = append(values, value)
		case len(values) > 0 && extensionKey.MatchString(key):
			extended = true
		default:
			return p, errNoPointer
		}
	}
	if len(values) != len(pointerKeys) || !slices.Contains(pointerVersions, values[0]) {
		return p, errNoPointer
	}
	oid, ok := strings.CutPrefix(values[1], "sha256:")
	if raw, err := hex.DecodeString(oid); !ok || err != nil || len(raw) != sha256.Size || strings.ToLower(oid) != oid {
		return p, errNoPointer
	}
	n, err := strconv.ParseInt(values[2], 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != values[2] {
		return p, errNoPointer
	}
	if extended {
		return p, errExtension
	}
	return pointer{oid: oid, size: n}, nil
}
