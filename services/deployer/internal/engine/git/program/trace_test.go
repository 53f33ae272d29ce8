package program

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAsked(t *testing.T) {
	now := time.Now()
	a := asked{last: http.Header{}}
	for _, part := range []string{
		"12:00:00.000001 http.c:725              <= Recv header: HTTP/1.1 429 Too Many\n12:00:00.000002 http.c:725 <= Recv hea", "der: retry-after: 7\r\n",
		strings.Repeat("x", 3*maxLine), "\n== Info: Retry-After: 9\n",
	} {
		if n, err := a.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if d := a.wait(now); d != 7*time.Second {
		t.Errorf("%v", d)
	}
	_, _ = a.Write([]byte("<= Recv header: HTTP/2 200\n"))
	if d := a.wait(now); d != 0 {
		t.Errorf("another answer: %v", d)
	}
}
