package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/kv"
)

const (
	// chunk is how much of an archive is sent at once, in bytes. Each is answered before the next is sent.
	chunk = 128 << 10
	// chunkTimeout bounds the answer to one.
	chunkTimeout = 30 * time.Second
	// finishTimeout bounds the answer to the end of an archive: NATS may have much left to write.
	finishTimeout = 10 * time.Minute
)

// upload has NATS make a stream of an archive. told hears how many bytes of it were sent.
func upload(ctx context.Context, session *kv.Session, cfg jetstream.StreamConfig, path string, told func(bytes uint64)) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var begun struct {
		answered
		DeliverSubject string `json:"deliver_subject"`
	}
	request, err := json.Marshal(map[string]any{"config": cfg, "state": map[string]any{}})
	if err == nil {
		err = ask(ctx, session, jetstream.DefaultAPIPrefix+"STREAM.RESTORE."+cfg.Name, request, chunkTimeout, &begun)
	}
	if err != nil {
		return err
	}
	buf, sent := make([]byte, chunk), uint64(0)
	for {
		n, err := io.ReadFull(f, buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		if err := ask(ctx, session, begun.DeliverSubject, buf[:n], chunkTimeout, &answered{}); err != nil {
			return err
		}
		sent += uint64(n) //nolint:gosec // at most a chunk
		told(sent)
	}
	return ask(ctx, session, begun.DeliverSubject, nil, finishTimeout, &answered{})
}

// answered is what every answer of JetStream may say.
type answered struct {
	Error *jetstream.APIError `json:"error"`
}

func (a *answered) err() error {
	if a.Error == nil {
		return nil
	}
	return a.Error
}

// ask sends one request and reads its answer, which may be empty.
func ask(ctx context.Context, session *kv.Session, subject string, data []byte, timeout time.Duration, answer interface{ err() error }) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	m, err := session.Conn().RequestWithContext(ctx, subject, data)
	if err != nil {
		return err
	}
	if len(m.Data) == 0 {
		return nil
	}
	if err := json.Unmarshal(m.Data, answer); err != nil {
		return fmt.Errorf("read the answer of NATS: %w", err)
	}
	return answer.err()
}
