package mirror

import (
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// line is one direction of a network line: what enters leaves at most so many bytes a second, and
// arrives a while later.
type line struct {
	delay time.Duration
	rate  float64 // bytes a second

	mu   sync.Mutex
	free time.Time // when the line has sent what entered it
}

// enter tells when n bytes have left, and when they arrive.
func (l *line) enter(n int) (left, arrive time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	return l.free, l.free.Add(l.delay)
}

// shaped is a TCP proxy in front of a server, at the far end of a line with the given round trip
// and rate in each direction.
func shaped(t testing.TB, to *url.URL, roundTrip time.Duration, bitsPerSecond float64) *url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	up := &line{delay: roundTrip / 2, rate: bitsPerSecond / 8}
	down := &line{delay: roundTrip / 2, rate: bitsPerSecond / 8}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	keep := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		open[c] = true
	}
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to.Host)
			if err != nil {
				_ = client.Close()
				continue
			}
			keep(client)
			keep(server)
			wg.Go(func() { up.carry(server, client, roundTrip) }) // a connection costs a round trip
			wg.Go(func() { down.carry(client, server, 0) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return &url.URL{Scheme: "http", Host: l.Addr().String()}
}

// TestShaped_isTheLineThatItSays holds the line to its round trip and its rate.
func TestShaped_isTheLineThatItSays(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c)
		_ = c.Close()
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	at := shaped(t, &url.URL{Host: l.Addr().String()}, 40*time.Millisecond, 8e6) // 1 MB/s
	c, err := net.Dial("tcp", at.Host)
	must(t, err)
	defer func() { _ = c.Close() }()
	begin := time.Now()
	b := make([]byte, 200_000)
	wg.Go(func() { _, _ = c.Write(b) })
	_, err = io.ReadFull(c, make([]byte, len(b)))
	must(t, err)
	// A round trip to connect, one there and back, and the rate.
	if d := time.Since(begin); d < 280*time.Millisecond-time.Millisecond || d > time.Minute {
		t.Fatalf("%v", d)
	}
}

func until(at time.Time) {
	if d := time.Until(at); d > 0 {
		t := time.NewTimer(d)
		<-t.C
	}
}

// queued is how much a line takes in before it has sent it.
const queued = 50 * time.Millisecond

// carry takes bytes over the line until one end closes.
func (l *line) carry(to, from net.Conn, first time.Duration) {
	type parcel struct {
		b  []byte
		at time.Time
	}
	onWay := make(chan parcel, 1024)
	var wg sync.WaitGroup
	wg.Go(func() {
		for p := range onWay {
			until(p.at)
			if _, err := to.Write(p.b); err != nil {
				break
			}
		}
		for range onWay { // the other end is gone
		}
		if c, ok := to.(*net.TCPConn); ok {
			_ = c.CloseWrite()
		}
	})
	until(time.Now().Add(first))
	for {
		b := make([]byte, 8<<10)
		n, err := from.Read(b)
		if n > 0 {
			left, arrive := l.enter(n)
			onWay <- parcel{b[:n], arrive}
			until(left.Add(-queued)) // a line that waits for us is not the line that was asked for
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = to.Close()
			}
			break
		}
	}
	close(onWay)
	wg.Wait()
}
