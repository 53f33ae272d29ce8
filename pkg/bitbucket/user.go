package bitbucket

import (
	"context"
	"net/http"
)

// User is the account behind a token (bitbucket.md section 3.1). Only the UUID is certain to be
// there and to stay.
type User struct {
	UUID        string // normalised
	AccountID   string
	Username    string // only ever of the current user
	Nickname    string
	DisplayName string
	AvatarURL   string
}

// Label is how the account is shown: user name, else nickname, else display name (design.md
// section 2). It is for people and identifies nobody.
func (u User) Label() string {
	switch {
	case u.Username != "":
		return u.Username
	case u.Nickname != "":
		return u.Nickname
	default:
		return u.DisplayName
	}
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
