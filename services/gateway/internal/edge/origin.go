package edge

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
)

// Origins decides which pages of other origins may speak with us.
//
// A request that changes something and carries no bearer token may come from our own pages, from an
// allowed origin, or from no page at all (net/http.CrossOriginProtection). A page cannot make a
// browser send a bearer token to us without our leave (CORS), so that requests with one need no such
// check. (It can make it send Basic credentials: a form may post to https://user:password@host.)
// Allowed origins get that leave.
type Origins struct {
	public  string
	allowed []string
}

// NewOrigins takes the public URL and the origins that the operator allows.
func NewOrigins(public *url.URL, allowed []string) (Origins, error) {
	o := Origins{public: public.Scheme + "://" + public.Host}
	for _, a := range allowed {
		u, err := url.Parse(a)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return Origins{}, fmt.Errorf("allowed origin %q is not like https://app.example.com", a)
		}
		o.allowed = append(o.allowed, strings.ToLower(u.Scheme+"://"+u.Host))
	}
	return o, nil
}

func (o Origins) protection() (*http.CrossOriginProtection, error) {
	p := http.NewCrossOriginProtection()
	for _, origin := range append([]string{o.public}, o.allowed...) {
		if err := p.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("edge: trust origin %s: %w", origin, err)
		}
	}
	return p, nil
}

func (o Origins) guard(cross *http.CrossOriginProtection, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if len(o.allowed) > 0 {
			w.Header().Add("Vary", "Origin")
		}
		shared := origin != "" && slices.Contains(o.allowed, strings.ToLower(origin))
		if shared {
			h := w.Header()
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Credentials", "true")
			h.Set("Access-Control-Expose-Headers", "Deprecation, ETag, Link, RateLimit, RateLimit-Policy, Retry-After, Sunset, "+HeaderRequestID)
		}
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			o.preflight(w, r, shared)
			return
		}
		if !bearer(r) && cross.Check(r) != nil {
			Of(r.Context()).Route = "refused origin"
			Fail(w, r, apierr.New(apierr.ReasonCrossOriginRefused,
				"The request came from a page of another site. Send it from Devpilot's own pages, or have the operator add the page's origin to --allowed-origins."))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func bearer(r *http.Request) bool {
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.EqualFold(scheme, "Bearer")
}

func (o Origins) preflight(w http.ResponseWriter, r *http.Request, shared bool) {
	Of(r.Context()).Route = "preflight"
	if !shared {
		Fail(w, r, apierr.New(apierr.ReasonCrossOriginRefused,
			"Pages of this origin may not call Devpilot. The operator can add it to --allowed-origins."))
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match, If-None-Match, Last-Event-ID, "+HeaderRequestID)
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}
