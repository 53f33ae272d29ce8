package bitbucket

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/apierr"
)

const someHash = "e5d1cde9069fcb9f0af90403a4de2150c125a148"

func TestCommits_pages(t *testing.T) {
	var s *server
	s = newServer(t, func(w http.ResponseWriter, r *http.Request) {
		next := s.URL + r.URL.EscapedPath() + "?ctx=abc&include=main&page=2"
		switch r.URL.Query().Get("page") {
		case "2":
			answerText(w, 200, "application/json", `{"values":[{"hash":"`+someHash+`","message":"Old\n"},{"message":"without a hash"},7]}`)
		case "9":
			answerText(w, 200, "application/json", `{"values":[],"next":"`+s.URL+`/2.0/user?page=3"}`)
		case "8":
			answerText(w, 200, "application/json", `{"values":[],"next":"https://elsewhere.test/commits?page=3"}`)
		default:
			answerText(w, 200, "application/json", `{"values":[{"hash":"f","date":"2026-04-12T06:44:38+00:00","author":{"raw":"Jane <jane@example.test>"}}],"next":"`+next+`"}`)
		}
	})
	a := s.account(t, ClientOptions{})
	ref := webRepository.Ref()
	first, err := a.Commits(t.Context(), ref, "feature/login", "main", "", 20)
	if err != nil || len(first.Commits) != 1 || first.Commits[0].AuthorEmail != "jane@example.test" || first.Next == "" {
		t.Fatalf("%+v, %v", first, err)
	}
	second, err := a.Commits(t.Context(), ref, "ignored", "", first.Next, 20)
	if err != nil || len(second.Commits) != 1 || second.Commits[0].Hash != someHash || second.Next != "" {
		t.Errorf("%+v, %v", second, err)
	}
	seen := s.requests()
	q, _ := url.ParseQuery(seen[0].Query)
	if q.Get("include") != "feature/login" || q.Get("exclude") != "main" || q.Get("pagelen") != "20" || !strings.Contains(q.Get("fields"), "next,") {
		t.Errorf("query = %v", q)
	}
	if q, _ := url.ParseQuery(seen[1].Query); q.Get("ctx") != "abc" || q.Get("include") != "main" || seen[1].Path != seen[0].Path {
		t.Errorf("the next page was asked for at %s by %v", seen[1].Path, q)
	}
	for _, page := range []string{"9", "8"} {
		if _, err := a.Commits(t.Context(), ref, "main", "", "page="+page, 20); !IsKind(err, KindBadResponse) {
			t.Errorf("page %s: %v", page, err)
		}
	}
}

func TestTags(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		one := `{"type":"tag","name":"v1/a","message":null,"date":null,"target":{"hash":"` + someHash + `","message":"Fix\n"}}`
		switch {
		case strings.HasSuffix(r.URL.Path, "/refs/tags"):
			answerText(w, 200, "application/json", `{"values":[`+one+`]}`)
		case strings.HasSuffix(r.URL.Path, "/refs/tags/v1/a"):
			answerText(w, 200, "application/json", one)
		case strings.HasSuffix(r.URL.Path, "/commit/"+someHash[:7]):
			answerText(w, 200, "application/json", `{"hash":"`+someHash+`"}`)
		case strings.HasSuffix(r.URL.Path, "/commit/fffffff"):
			answerText(w, 200, "application/json", `{"hash":"`+someHash+`"}`)
		default:
			answerText(w, 404, "application/json", `{"type":"error","error":{"message":"Commit not found","data":{"shas":["x"]}}}`)
		}
	})
	a, ref := s.account(t, ClientOptions{}), webRepository.Ref()
	l, err := a.Tags(t.Context(), ref, BranchesOptions{Contains: "v1"})
	if err != nil || len(l.Values) != 1 || l.Values[0].Name != "v1/a" || l.Values[0].Target.Hash != someHash {
		t.Errorf("%+v, %v", l, err)
	}
	if tag, err := a.Tag(t.Context(), ref, "v1/a"); err != nil || tag.Target.Message != "Fix\n" {
		t.Errorf("%+v, %v", tag, err)
	}
	if c, err := a.Commit(t.Context(), ref, someHash[:7]); err != nil || c.Hash != someHash {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := a.Commit(t.Context(), ref, "fffffff"); !IsKind(err, KindBadResponse) {
		t.Errorf("another commit: %v", err)
	}
	before := len(s.requests())
	if _, err := a.Tag(t.Context(), ref, "../../hooks"); !IsKind(err, KindNotFound) || len(s.requests()) != before {
		t.Errorf("a name that leaves the path: %v", err)
	}
	_, noTag := a.Tag(t.Context(), ref, "v2")
	_, noCommit := a.Commit(t.Context(), ref, strings.Repeat("0", 40))
	got := []apierr.Reason{apierr.From(noTag).Reason(), apierr.From(noCommit).Reason()}
	if want := []apierr.Reason{apierr.ReasonTagNotFound, apierr.ReasonCommitNotFound}; !slices.Equal(got, want) {
		t.Errorf("reasons = %v, want %v", got, want)
	}
}
