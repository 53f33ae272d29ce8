package hosting

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

const (
	headersFile   = "_headers"
	redirectsFile = "_redirects"

	maxHeadersFile = 64 << 10 // bytes
	maxHeaderLine  = 2000     // characters, as at Cloudflare
	maxRules       = 100      // as at Cloudflare
	maxOperations  = 50       // header lines of one rule
	maxHeaderBytes = 32 << 10 // of the values of one answer; what a path blows up beyond that is left out
	maxProblems    = 50       // reported; a file of garbage needs no more
)

// Problem is something in a _headers file that does not take effect.
type Problem struct {
	// Line counts from 1; 0 is the file as a whole.
	Line int
	// Message says what is wrong and what to do, for people.
	Message string
}

// rule is one path pattern of a _headers file with its header lines.
type rule struct {
	pattern    pattern
	operations []operation
}

// operation sets a header, or takes it away (value empty, detach true).
type operation struct {
	name   string // canonical
	value  string
	detach bool
}

// refused are the headers a _headers file cannot set, each with the reason.
var refused = func() map[string]string {
	m := map[string]string{
		"Set-Cookie":       "cookies do not belong into answers that anyone may cache, and could reach neighbouring sites",
		"Set-Cookie2":      "cookies do not belong into answers that anyone may cache",
		"Basic-Auth":       "password protection is not offered, and the line would show the password to every visitor",
		"Location":         "redirects are not made by headers",
		"Server":           "it is the server's own",
		"Content-Encoding": "", "Content-Range": "", "Accept-Ranges": "", "Etag": "", "Last-Modified": "", "Date": "", "Age": "",
		"Content-Length": "", "Transfer-Encoding": "", "Te": "", "Trailer": "", "Connection": "", "Keep-Alive": "", "Upgrade": "",
		"Proxy-Connection": "", "Proxy-Authenticate": "", "Proxy-Authorization": "", "Host": "", "Allow": "", "Status": "", "Alt-Svc": "",
		"X-Content-Type-Options": "it is always nosniff", "X-Devpilot-Release": "it is Devpilot's own",
	}
	for name, why := range m {
		if why == "" {
			m[name] = "the server makes it for each answer"
		}
	}
	return m
}()

// single are headers of one value: the last rule wins. All others are joined with a comma.
var single = map[string]bool{
	"Content-Type": true, "X-Frame-Options": true, "Content-Disposition": true, "Access-Control-Allow-Origin": true,
	"Access-Control-Max-Age": true, "Access-Control-Allow-Credentials": true, "Strict-Transport-Security": true,
	"Cross-Origin-Opener-Policy": true, "Cross-Origin-Embedder-Policy": true, "Cross-Origin-Resource-Policy": true,
	"Service-Worker-Allowed": true, "Refresh": true,
}

// CheckHeaders reads a _headers file as the server would and returns what in it does not take effect, in
// order of lines, at most 50. It is in the form known from Netlify and Cloudflare Pages:
//
//	# a comment
//	/assets/*
//	  Cache-Control: public, max-age=31536000, immutable
//	/users/:name/*
//	  X-User: :name
//	  ! X-Frame-Options
//
// A pattern is compared with the request's decoded path. It is a path with at most one "*", which
// matches anything, slashes included, and is :splat in values, and with placeholders ":name", each a
// whole segment. All rules that match apply in order; a header set several times is joined with commas
// (a header of one value is replaced), and "! Name" takes away what an earlier line or Devpilot's
// default set. Limits: 64 KiB, 2,000 characters a line, 100 rules, 50 headers each. A line with a
// problem is left out and the rest applies; a file over 64 KiB does not apply at all.
func CheckHeaders(r io.Reader) []Problem {
	_, problems := parseHeaders(r)
	return problems
}

type headersParser struct {
	rules    []rule
	problems []Problem
	line     int
	begun    bool // a path was seen
	skipping bool // the path above has a problem: its header lines are passed over
}

func parseHeaders(r io.Reader) ([]rule, []Problem) {
	text, err := io.ReadAll(io.LimitReader(r, maxHeadersFile+1))
	if err != nil {
		return nil, []Problem{{0, "the file cannot be read"}}
	}
	if len(text) > maxHeadersFile {
		return nil, []Problem{{0, fmt.Sprintf("the file is larger than %d KiB and is ignored", maxHeadersFile>>10)}}
	}
	p := headersParser{skipping: true}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxHeadersFile+1)
	for lines.Scan() {
		p.line++
		p.parseLine(lines.Text())
	}
	rules := p.rules[:0]
	for _, rule := range p.rules {
		if len(rule.operations) > 0 {
			rules = append(rules, rule)
		}
	}
	return rules, p.problems
}

func (p *headersParser) problem(format string, args ...any) {
	if len(p.problems) < maxProblems {
		p.problems = append(p.problems, Problem{p.line, fmt.Sprintf(format, args...)})
	}
}

func (p *headersParser) parseLine(line string) {
	text := strings.TrimSpace(line)
	switch {
	case text == "" || text[0] == '#':
	case len(line) > maxHeaderLine:
		p.problem("the line is longer than %d characters", maxHeaderLine)
		if line[0] != ' ' && line[0] != '\t' {
			p.begun, p.skipping = true, true
		}
	case line[0] != ' ' && line[0] != '\t':
		p.parsePattern(text)
	case p.skipping && !p.begun:
		p.problem("a header before the first path: begin with a path such as /*, at the start of its line")
	case p.skipping:
	case text[0] == '!':
		p.add(operation{name: strings.TrimSpace(text[1:]), detach: true})
	default:
		name, value, ok := strings.Cut(text, ":")
		if !ok {
			p.problem("expected \"Name: value\"")
			return
		}
		p.add(operation{name: strings.TrimSpace(name), value: strings.TrimSpace(value)})
	}
}

func (p *headersParser) parsePattern(text string) {
	p.begun, p.skipping = true, true
	if len(p.rules) >= maxRules {
		p.problem("more than %d paths: this one is ignored", maxRules)
		return
	}
	if text[0] != '/' {
		p.problem("expected a path that begins with \"/\" (whole URLs are not supported), or a header line that begins with a space")
		return
	}
	pattern, err := parsePattern(text)
	if err != nil {
		p.problem("%v", err)
		return
	}
	p.skipping = false
	p.rules = append(p.rules, rule{pattern: pattern})
}

func (p *headersParser) add(op operation) {
	rule := &p.rules[len(p.rules)-1]
	if !httpguts.ValidHeaderFieldName(op.name) {
		p.problem("%q is no header name", op.name)
		return
	}
	op.name = http.CanonicalHeaderKey(op.name)
	if why, ok := refused[op.name]; ok {
		p.problem("%s cannot be set: %s", op.name, why)
		return
	}
	if !op.detach && (op.value == "" || !httpguts.ValidHeaderFieldValue(op.value)) {
		p.problem("the value of %s is empty or holds characters that a header cannot", op.name)
		return
	}
	if len(rule.operations) >= maxOperations {
		p.problem("more than %d headers for one path: this one is ignored", maxOperations)
		return
	}
	rule.operations = append(rule.operations, op)
}

// apply changes h for a request's path (decoded, with its slash).
func apply(rules []rule, path string, h http.Header) {
	var set map[string]bool
	left := maxHeaderBytes
	for i := range rules {
		captures, ok := rules[i].pattern.match(path)
		if !ok {
			continue
		}
		for _, op := range rules[i].operations {
			value, ok := captures.expand(op.value, left)
			if !ok {
				continue
			}
			left -= len(value)
			switch {
			case op.detach:
				h.Del(op.name)
				delete(set, op.name)
				continue
			case set[op.name] && !single[op.name]:
				h.Set(op.name, h.Get(op.name)+", "+value)
			default:
				h.Set(op.name, value)
			}
			if set == nil {
				set = make(map[string]bool)
			}
			set[op.name] = true
		}
	}
}
