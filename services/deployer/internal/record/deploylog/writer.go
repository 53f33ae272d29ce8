package deploylog

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/terminal"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"
)

// Limits bound a deployment's log.
type Limits struct {
	Lines int   // 200,000 when zero
	Bytes int64 // of text; 32 MiB when zero
}

func (l Limits) withDefaults() Limits {
	if l.Lines == 0 {
		l.Lines = 200_000
	}
	if l.Bytes == 0 {
		l.Bytes = 32 << 20
	}
	return l
}

const (
	flushEvery = 100 * time.Millisecond // for how long lines are collected before they are stored
	flushBytes = 64 << 10               // bytes of lines that are stored at a time
	closeFirst = 20 * time.Millisecond  // before the last lines are tried a second time
	closeMost  = time.Second            // between two tries to store the last lines at most
	// maxLine cuts a line; maxBuffered bounds what waits while the stream is away.
	maxLine     = 8 << 10
	maxBuffered = 2 << 20 // bytes of lines that wait while the store is away
	// systemReserve is how many of Devpilot's own lines still fit after the log was cut.
	systemReserve = 200
)

// Sink opens logs.
type Sink struct {
	JS      jetstream.JetStream
	Logs    jetstream.Stream
	Secrets *Secrets
	Limits  Limits
	Logger  *slog.Logger
	Now     func() time.Time
}

// Name names the log of one attempt.
type Name struct {
	Workspace, App string
	Number         int32
	Generation     int64 // of the lane
	Epoch          int64 // of the attempt
}

// Writer writes the log of one attempt. It is safe for concurrent use.
type Writer struct {
	sink    *Sink
	name    Name
	subject string
	limits  Limits

	mu       sync.Mutex
	buf      []*deployerv1.LogRecord
	bufBytes int
	cut      bool
	lines    int
	bytes    int64
	system   int
	lost     bool       // lines were dropped because the stream was away too long
	room     *sync.Cond // told of whatever ends the wait for room in buf
	away     bool       // the last attempt to store failed: nobody waits for room, and lines are dropped
	closing  bool
	forms    []form
	mask     *mask // of this deployment's own secrets
	passages []passage
	streams  map[deployerv1.LogRecord_Stream]*before

	flushing sync.Mutex // one publish at a time; guards what follows
	opened   bool
	seq      uint64
	line     int32
	total    int64
	stale    bool

	kick    chan struct{}
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
}

// Open begins to write. Lines go out in the background until Close. It does no I/O itself: a log
// that cannot be written never keeps a deployment from running.
func (s *Sink) Open(ctx context.Context, n Name) (*Writer, error) {
	subject, err := streams.LogSubject(n.Workspace, n.App, n.Number)
	if err != nil {
		return nil, fmt.Errorf("deploylog: %w", err)
	}
	w := &Writer{
		sink: s, name: n, subject: subject, limits: s.Limits.withDefaults(),
		mask:    newMask(nil),
		streams: map[deployerv1.LogRecord_Stream]*before{},
		kick:    make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	w.room = sync.NewCond(&w.mu)
	go w.run(context.WithoutCancel(ctx))
	return w, nil
}

// Line adds a line. Text may hold anything: line ends split it, what is not UTF-8 is replaced,
// secrets are masked. It waits while lines come faster than the store takes them, so that what
// prints them is slowed and none is lost, but not for a store that is away.
func (w *Writer) Line(stage deployerv1.Deployment_Stage, from deployerv1.LogRecord_Stream, text string) {
	w.HookLine(stage, "", from, text)
}

// HookLine adds a line that a deployment hook printed.
func (w *Writer) HookLine(stage deployerv1.Deployment_Stage, hook string, from deployerv1.LogRecord_Stream, text string) {
	now := timestamppb.New(w.sink.Now())
	var by *string
	if hook != "" {
		by = &hook
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.bufBytes > maxBuffered && !w.away && !w.closing {
		w.room.Wait()
	}
	for line := range strings.SplitSeq(strings.TrimRight(text, "\r\n"), "\n") {
		w.add(&deployerv1.LogRecord{Time: now, Stage: stage, Stream: from, Hook: by, Text: w.clean(from, line)})
	}
	if w.bufBytes >= flushBytes {
		select {
		case w.kick <- struct{}{}:
		default:
		}
	}
}

// Hide masks the values of secret variables, by name, in this log's lines from now on, in all the
// ways in which programs write them: also in base64, hexadecimal, URLs, JSON and shell quoting. It
// returns the names of those that are too short to be masked (under 4 characters, or several lines of
// which none tells enough by itself): they would hide ordinary words, and should be shown to people as
// not hidden.
func (w *Writer) Hide(secrets map[string]seal.Secret) (unmasked []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, secret := range secrets {
		forms := formsOf(secret.Reveal())
		p := passageOf(secret.Reveal())
		if !secret.IsZero() && (len(forms) == 0 || len(p) > 1 && !slices.ContainsFunc(p, telling)) {
			unmasked = append(unmasked, name)
		}
		if len(p) > 1 {
			w.passages = append(w.passages, p)
		}
		w.forms = append(w.forms, forms...)
	}
	w.mask = newMask(w.forms)
	slices.Sort(unmasked)
	return unmasked
}

// clean makes a line fit. It is masked before it is cut, so that no half of a secret is left over:
// as much is searched as one that begins before the cut can need.
func (w *Writer) clean(from deployerv1.LogRecord_Stream, line string) string {
	line = strings.TrimRight(line, "\r")
	global := w.sink.Secrets.current()
	longest := max(global.longest, w.mask.longest)
	beyond := len(line) > maxLine+longest
	if beyond {
		line = line[:maxLine+longest]
	}
	spans := w.mask.find(line, global.find(line, nil))
	if plain := terminal.Strip(line); plain != line { // a colour may stand in the middle of a secret
		if read := w.mask.find(plain, global.find(plain, nil)); len(read) > len(spans) {
			line, spans = plain, read
		}
	}
	if w.streams[from] == nil {
		w.streams[from] = &before{}
	}
	line, cut := hide(line, w.streams[from].line(line, w.passages, spans), maxLine)
	line = strings.ReplaceAll(strings.ToValidUTF8(line, "\uFFFD"), "\x00", "\uFFFD")
	if cut || beyond { // within a character, or a sequence that would swallow the mark
		line = terminal.TrimUnfinished(strings.TrimSuffix(line, "\uFFFD")) + " … (line cut)"
	}
	return line
}

func (w *Writer) add(r *deployerv1.LogRecord) {
	own := r.GetStream() == deployerv1.LogRecord_SYSTEM
	switch {
	case w.cut && (!own || w.system >= systemReserve):
		return
	case !w.cut && (w.lines >= w.limits.Lines || w.bytes+int64(len(r.GetText())) > w.limits.Bytes):
		w.cut = true
		w.append(&deployerv1.LogRecord{
			Time: r.GetTime(), Stage: r.GetStage(), Stream: deployerv1.LogRecord_SYSTEM,
			Text: fmt.Sprintf("Log cut here: it reached its limit of %d lines or %d KiB. What the programs print from here on is not kept.", w.limits.Lines, w.limits.Bytes>>10),
		})
		if !own {
			return
		}
	}
	if own {
		w.system++
	}
	w.append(r)
}

func (w *Writer) append(r *deployerv1.LogRecord) {
	if w.bufBytes > maxBuffered {
		w.lost = true
		return
	}
	if w.lost {
		w.lost = false
		w.append(&deployerv1.LogRecord{Time: r.GetTime(), Stage: r.GetStage(), Stream: deployerv1.LogRecord_SYSTEM, Text: "Lines are missing here: the log store was away."})
	}
	w.lines++
	w.bytes += int64(len(r.GetText()))
	w.bufBytes += len(r.GetText()) + 32
	w.buf = append(w.buf, r)
}

// run flushes until Close.
func (w *Writer) run(ctx context.Context) {
	defer close(w.stopped)
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-t.C:
		case <-w.kick:
		}
		err := w.flush(ctx)
		w.mu.Lock()
		w.away = err != nil
		w.mu.Unlock()
		w.room.Broadcast()
		if err != nil {
			w.sink.Logger.DebugContext(ctx, "log lines wait", slog.String(logs.KeyApp, w.name.App), logs.Err(err))
		}
	}
}

// Close writes what is left, until ctx is done. What then is not written is lost, and logged.
func (w *Writer) Close(ctx context.Context) {
	w.once.Do(func() { close(w.stop) })
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	w.room.Broadcast()
	<-w.stopped
	var last error
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		last = w.flush(ctx)
		return struct{}{}, last
	}, backoff.WithBackOff(stream.Pauses(closeFirst, closeMost)), backoff.WithMaxElapsedTime(0))
	if err != nil {
		w.sink.Logger.WarnContext(ctx, "last log lines not written", slog.String(logs.KeyWorkspace, w.name.Workspace),
			slog.String(logs.KeyApp, w.name.App), slog.Int(logs.KeyDeployment, int(w.name.Number)), logs.Err(last))
	}
}

// flush publishes what waits, in messages of at most flushBytes.
func (w *Writer) flush(ctx context.Context) error {
	w.flushing.Lock()
	defer w.flushing.Unlock()
	for {
		if err := w.open(ctx); err != nil {
			return err
		}
		w.mu.Lock()
		n, size := 0, 0
		for n < len(w.buf) && (n == 0 || size < flushBytes) {
			size += len(w.buf[n].GetText()) + 32
			n++
		}
		records := w.buf[:n:n]
		w.mu.Unlock()
		if n == 0 {
			return nil
		}
		if !w.stale {
			if err := w.publish(ctx, records); err != nil {
				return err
			}
		}
		w.mu.Lock()
		w.buf = w.buf[n:]
		w.bufBytes -= size
		w.mu.Unlock()
		w.room.Broadcast()
	}
}

// open finds where the attempts before left off.
func (w *Writer) open(ctx context.Context) error {
	if w.opened {
		return nil
	}
	last, seq, err := w.sink.last(ctx, w.subject)
	if err != nil {
		return err
	}
	w.seq = seq
	if last.GetGeneration() == w.name.Generation {
		w.line, w.total = last.GetLastLine(), last.GetTotalBytes()
		w.stale = last.GetEpoch() > w.name.Epoch
		w.mu.Lock()
		w.lines += int(last.GetLastLine())
		w.bytes += last.GetTotalBytes()
		w.cut = w.cut || last.GetCut()
		w.mu.Unlock()
	}
	w.opened = true
	return nil
}
