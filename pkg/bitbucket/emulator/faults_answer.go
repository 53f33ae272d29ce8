package emulator

import (
	"cmp"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// serveFaulty answers the request, unless a fault does.
func (e *Emulator) serveFaulty(w *statusWriter, r *http.Request, rt *route, p params) {
	x := exchangeOf(r)
	var spoiled Fault // what becomes of the true answer
	late := time.Duration(0)
	t := e.targetOf(rt, r, p)
	for _, fault := range e.faults.takeRequest(t) {
		x.record.Fault = fault.ID
		switch {
		case fault.Late:
			late += fault.Delay
		case fault.Kind != FaultTrickle && !pause(r.Context(), fault.Delay):
			return
		}
		if fault.Kind == FaultReset {
			w.reset()
		}
		if fault.Kind == FaultForeignNext {
			x.foreignNext = true
			continue
		}
		if answer, replaces := fault.answer(t); replaces {
			e.send(w, answer)
			return
		}
		if fault.Drop || fault.spoils() {
			spoiled = fault
		}
	}
	if spoiled.ID == "" && late == 0 {
		e.dispatch(w, r, rt, p)
		return
	}
	// The request takes effect; its answer waits, is lost or is spoiled.
	kept := newBuffer()
	e.dispatch(kept, r, rt, p)
	kept.WriteHeader(http.StatusOK)
	if !pause(r.Context(), late) || spoiled.Drop {
		w.status = kept.status
		panic(http.ErrAbortHandler)
	}
	kept.sendSpoiled(w, r, &spoiled)
}

func (f *Fault) spoils() bool {
	return f.Kind == FaultTruncated || f.Kind == FaultHalved || f.Kind == FaultTrickle
}

// trickles is in how many pieces FaultTrickle sends an answer.
const trickles = 10

// sendSpoiled sends the answer that was kept as the fault wants it.
func (b *buffer) sendSpoiled(w *statusWriter, r *http.Request, fault *Fault) {
	for name, values := range b.header {
		w.Header()[name] = values
	}
	body := b.body
	if fault.Kind == FaultHalved {
		body = body[:len(body)/2]
	}
	if len(b.body) > 0 {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(b.status)
	switch fault.Kind {
	case FaultTruncated:
		_, _ = w.Write(body[:len(body)/2]) // a peer that is gone needs no answer
		w.flush()
		panic(http.ErrAbortHandler)
	case FaultTrickle:
		for i := range trickles {
			if !pause(r.Context(), fault.Delay/trickles) {
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write(body[len(body)*i/trickles : len(body)*(i+1)/trickles])
			w.flush()
		}
	default:
		_, _ = w.Write(body)
	}
}

func (w *statusWriter) flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// reset ends the connection with RST, so that the peer reads "connection reset". Without a network it is just cut.
func (w *statusWriter) reset() {
	w.status = 0
	if conn, _, err := http.NewResponseController(w.ResponseWriter).Hijack(); err == nil {
		if tcp, isTCP := conn.(*net.TCPConn); isTCP {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}

// answer is what the fault answers instead of the emulator, if it does.
func (f *Fault) answer(t *target) (response, bool) {
	answer, replaces := f.kindAnswer(t)
	if !replaces {
		return response{}, false
	}
	if f.RetryAfter > 0 {
		answer = answer.with("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	for name, value := range f.Headers {
		answer = answer.with(name, value)
	}
	return answer, true
}

func (f *Fault) kindAnswer(t *target) (response, bool) {
	switch f.Kind {
	case FaultTokenExpired:
		return failure(http.StatusUnauthorized, msgTokenExpired), true
	case FaultTokenExpiredOld:
		return failure(http.StatusUnauthorized, msgTokenExpiredOld), true
	case FaultTokenInvalid:
		return failure(http.StatusUnauthorized, msgTokenInvalid), true
	case FaultMissingScope:
		return missingScope([]string{"account", "email"}, []string{"repository"}), true
	case FaultRateLimited:
		return tooManyRequests(false, false, 0), true
	case FaultRateLimitedText:
		return tooManyRequests(true, false, 0), true
	case FaultRateLimitedReset:
		return tooManyRequests(false, false, 0).with("x-ratelimit-limit", "60, 60;w=3600").
			with("x-ratelimit-remaining", "0").with("x-ratelimit-reset", "745"), true
	case FaultServerErrorHTML:
		return htmlAnswer(cmp.Or(f.Status, http.StatusBadGateway)), true
	case FaultIPAllowList:
		return plain(http.StatusForbidden, "To access this repository, an admin must whitelist your IP."), true
	case FaultTwoStep:
		return plain(http.StatusForbidden, "To access this repository, enable two-step authentication."), true
	case FaultWrongBody:
		return f.wrongBody(t), true
	case FaultFlush:
		return flushAnswer(t), true
	default:
		return f.plainAnswer(t)
	}
}

// plainAnswer is the fault's own Status and Body; without a Body the plane's words for the Status.
func (f *Fault) plainAnswer(t *target) (response, bool) {
	switch {
	case f.Kind != "" || (f.Status == 0 && f.Body == ""):
		return response{}, false
	case f.Body != "" || f.BodyKind == "none":
		return plain(cmp.Or(f.Status, http.StatusInternalServerError), f.Body).with("Content-Type", f.contentType()), true
	default:
		return t.answer(f.Status), true
	}
}

func (f *Fault) contentType() string {
	kind := f.BodyKind
	if kind == "" && strings.HasPrefix(strings.TrimSpace(f.Body), "{") {
		kind = "json"
	}
	switch kind {
	case "json":
		return "application/json; charset=utf-8"
	case "html":
		return "text/html; charset=utf-8"
	default:
		return "text/plain; charset=utf-8"
	}
}

// wrongBody is what a proxy or a confused server sends instead of the answer.
func (f *Fault) wrongBody(t *target) response {
	status := cmp.Or(f.Status, http.StatusOK)
	if f.Body != "" {
		return plain(status, f.Body).with("Content-Type", f.contentType())
	}
	kind := f.BodyKind
	if kind == "" {
		kind = map[string]string{routeAPI: "html", routeOAuth: "html"}[t.plane]
	}
	switch kind {
	case "html":
		return htmlAnswer(status)
	case "text":
		return plain(status, http.StatusText(status))
	case "none":
		return response{status: status}
	default:
		return response{status: status, body: obj{"type": "error", "error": obj{"message": "Something went wrong"}}}
	}
}

// flushAnswer is a git answer with nothing in it: no refs, no pack.
func flushAnswer(t *target) response {
	answer := plain(http.StatusOK, "0000").with("Cache-Control", "no-cache")
	service := "git-upload-pack"
	if t.step == stepPush || t.r.URL.Query().Get("service") == "git-receive-pack" {
		service = "git-receive-pack"
	}
	if t.step != stepRefs {
		return answer.with("Content-Type", "application/x-"+service+"-result")
	}
	line := "# service=" + service + "\n"
	answer.text = "00" + strconv.FormatInt(int64(len(line)+4), 16) + line + "0000" + "0000"
	return answer.with("Content-Type", "application/x-"+service+"-advertisement")
}

// htmlAnswer is the page of a gateway.
func htmlAnswer(status int) response {
	text := strconv.Itoa(status) + " " + http.StatusText(status)
	return plain(status, "<!DOCTYPE html><html><head><title>"+strconv.Itoa(status)+"</title></head><body><h1>"+text+
		"</h1></body></html>").with("Content-Type", "text/html")
}

// answer is how the plane says a status: in the words of BITBUCKET.md where they are known.
func (t *target) answer(status int) response {
	text := map[int]string{
		http.StatusUnauthorized: msgTokenInvalid, http.StatusForbidden: msgWriteAccess, http.StatusNotFound: msgNoRepository,
		http.StatusTooManyRequests: msgRateLimit, http.StatusInternalServerError: "Something went wrong",
	}[status]
	text = cmp.Or(text, http.StatusText(status), "Something went wrong")
	switch {
	case status > http.StatusInternalServerError || t.plane == routeSite:
		return htmlAnswer(status)
	case t.plane == routeGit && status == http.StatusUnauthorized:
		return unauthorizedGit()
	case t.plane == routeGit && status == http.StatusForbidden:
		return plain(status, msgNoRepository)
	case t.plane == routeGit:
		return plain(status, text)
	case t.plane == routeAPI && status == http.StatusNotFound && len(t.names) == 0:
		return failure(status, "Resource not found")
	default:
		return failure(status, text)
	}
}
