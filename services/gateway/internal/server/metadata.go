package server

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/grpc/metadata"
)

// What goes between the HTTP side and this service, beside the requests themselves. Only the HTTP
// side of the same process calls this service, and it passes no header of a client on.
const (
	mdClientAddress = "devpilot-client-address"
	mdSessionID     = "devpilot-session-id"
	mdSessionExpire = "devpilot-session-expire"
	mdUserAgent     = "devpilot-user-agent"

	mdCookie       = "devpilot-cookie"
	mdCookieExpire = "devpilot-cookie-expire"
	mdCookieClear  = "devpilot-cookie-clear"
)

// CallMetadata is what the HTTP side says about a request.
type CallMetadata struct {
	ClientAddress string
	SessionID     string // of the browser session; empty for other callers
	SessionExpire time.Time
	UserAgent     string // what the client says that it is
}

// Encode makes gRPC metadata of it.
func (m CallMetadata) Encode() metadata.MD {
	md := metadata.MD{}
	if m.ClientAddress != "" {
		md.Set(mdClientAddress, m.ClientAddress)
	}
	if m.UserAgent != "" {
		md.Set(mdUserAgent, strconv.QuoteToASCII(m.UserAgent)) // metadata takes printable ASCII only
	}
	if m.SessionID != "" {
		md.Set(mdSessionID, m.SessionID)
		md.Set(mdSessionExpire, strconv.FormatInt(m.SessionExpire.Unix(), 10))
	}
	return md
}

func callMetadata(ctx context.Context) CallMetadata {
	one := func(key string) string {
		if v := metadata.ValueFromIncomingContext(ctx, key); len(v) == 1 {
			return v[0]
		}
		return ""
	}
	m := CallMetadata{ClientAddress: one(mdClientAddress), SessionID: one(mdSessionID)}
	if agent, err := strconv.Unquote(one(mdUserAgent)); err == nil {
		m.UserAgent = agent
	}
	if unix, err := strconv.ParseInt(one(mdSessionExpire), 10, 64); err == nil {
		m.SessionExpire = time.Unix(unix, 0)
	}
	return m
}

// setCookie asks the HTTP side to give the browser a session cookie.
func setCookie(value string, expire time.Time) metadata.MD {
	return metadata.Pairs(mdCookie, value, mdCookieExpire, strconv.FormatInt(expire.Unix(), 10))
}

// clearCookie asks the HTTP side to take it away.
func clearCookie() metadata.MD { return metadata.Pairs(mdCookieClear, "1") }

// CookieOf reads what an answer says about the session cookie.
func CookieOf(md metadata.MD) (value string, expire time.Time, clear bool) {
	if len(md.Get(mdCookieClear)) > 0 {
		return "", time.Time{}, true
	}
	v, e := md.Get(mdCookie), md.Get(mdCookieExpire)
	if len(v) != 1 || len(e) != 1 {
		return "", time.Time{}, false
	}
	unix, err := strconv.ParseInt(e[0], 10, 64)
	if err != nil {
		return "", time.Time{}, false
	}
	return v[0], time.Unix(unix, 0), false
}
