// Package pagetoken seals the cursors of lists into page tokens (DESIGN.md#the-api).
//
// A token is opaque to its holder and bound to a scope: the method, the workspace and the filters
// of the list. It cannot be made up, changed, or used for another list. Equal cursors give equal
// tokens, so that an unchanged page keeps its ETag.
//
// Depends on pkg/seal and pkg/apierr.
package pagetoken

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
)

// MaxLength bounds a token that is opened; longer ones are refused unread.
const MaxLength = 4096

// Codec makes and reads page tokens. It is safe for concurrent use.
type Codec struct {
	sealer *seal.Deterministic
}

// New makes a codec on keys derived from the keyset.
func New(keys *seal.Keyset) (*Codec, error) {
	d, err := keys.Deterministic("page-token")
	if err != nil {
		return nil, fmt.Errorf("pagetoken: %w", err)
	}
	return &Codec{sealer: d}, nil
}

// Scope joins the parts that a token is bound to; no two different lists of parts give the same
// scope.
func Scope(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(strconv.Itoa(len(p)))
		b.WriteByte(':')
		b.WriteString(p)
	}
	return b.String()
}

// Encode seals the cursor of the next page. An empty cursor means that there is none: "".
func (c *Codec) Encode(scope string, cursor []byte) string {
	if len(cursor) == 0 {
		return ""
	}
	sealed, err := c.sealer.Seal(cursor, []byte(scope))
	if err != nil { // AES-SIV refuses only texts near the length of memory
		panic(fmt.Sprintf("pagetoken: a cursor of %d bytes: %v", len(cursor), err))
	}
	return base64.RawURLEncoding.EncodeToString(sealed)
}

// Decode opens a token for the same scope. The empty token is the first page: a nil cursor. The
// error has reason PAGE_TOKEN_INVALID.
func (c *Codec) Decode(scope, token string) ([]byte, error) {
	if token == "" {
		return nil, nil
	}
	if len(token) > MaxLength {
		return nil, Invalid(nil)
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return nil, Invalid(err)
	}
	cursor, err := c.sealer.Open(sealed, []byte(scope))
	if err != nil {
		return nil, Invalid(err)
	}
	return cursor, nil
}

// Invalid is the error of a token that is none of its list: also of one that opens and holds no cursor of it.
func Invalid(cause error) error {
	return apierr.New(apierr.ReasonPageTokenInvalid,
		"The page token does not belong to this list. Start again at the first page and keep the filters unchanged between pages.",
		apierr.WithField("pageToken", "not a token of this list"), apierr.WithCause(cause))
}
