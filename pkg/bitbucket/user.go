package bitbucket

import (
	"context"
	"net/http"
	"strings"

	"devpilot.io/bitbucket/pkg/pasted"
)

// User is the account behind a token (BITBUCKET.md#user). Only the UUID is certain to be
// there and to stay.
type User struct {
	UUID        string // normalised
	AccountID   string
	Username    string // only ever of the current user
	Nickname    string
	DisplayName string
	AvatarURL   string
}

// Label is how the account is shown: user name, else nickname, else display name (DESIGN.md#words),
// and where Bitbucket tells none of them, the begin of its UUID. It is for people and
// identifies nobody; it is never empty.
func (u User) Label() string {
	for _, name := range []string{u.Username, u.Nickname, u.DisplayName} {
		if name = pasted.Line(name); name != "" {
			return name
		}
	}
	begin, _, _ := strings.Cut(u.UUID, "-")
	return "account " + begin
}

type wireLink struct {
	Href string `json:"href"`
}

type wireUser struct {
	UUID        string `json:"uuid"`
	AccountID   string `json:"account_id"`
	Username    string `json:"username"`
	Nickname    string `json:"nickname"`
	DisplayName string `json:"display_name"`
	Links       struct {
		Avatar wireLink `json:"avatar"`
	} `json:"links"`
}

// User reads the account that the token belongs to. It needs the scope `account`.
func (a *Account) User(ctx context.Context) (User, error) {
	var w wireUser
	k := call{method: http.MethodGet, route: RouteUser, path: "user", out: &w}
	if err := a.do(ctx, k); err != nil {
		return User{}, err
	}
	u := User{
		UUID: NormalizeUUID(w.UUID), AccountID: w.AccountID, Username: w.Username, Nickname: w.Nickname,
		DisplayName: w.DisplayName, AvatarURL: w.Links.Avatar.Href,
	}
	if !IsUUID(u.UUID) {
		return User{}, a.client.bad(k, http.StatusOK, "the account has no UUID")
	}
	return u, nil
}
