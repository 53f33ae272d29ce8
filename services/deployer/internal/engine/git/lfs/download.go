package lfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// errExpired says that a download was refused: what permitted it may have expired.
var errExpired = errors.New("lfs: the download was refused")

// keep downloads one object, verifies it, and only then gives it its name.
func (c *Client) keep(ctx context.Context, w *object, a action, dir string, disk tree.Disk, count func(int64)) error {
	if err := disk.Check(filepath.Dir(dir)); err != nil {
		return err
	}
	f, err := os.CreateTemp(c.cfg.Temporary, "lfs-")
	if err != nil {
		return fmt.Errorf("lfs: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	err = c.get(ctx, w, a, f, func(int64) error { return disk.Check(filepath.Dir(dir)) })
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	to := w.place(dir)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("lfs: %w", err)
	}
	if err := os.Rename(f.Name(), to); err != nil {
		return fmt.Errorf("lfs: %w", err)
	}
	count(w.size)
	return nil
}

// get downloads from where the batch API said, with the headers that it gave and no other: never
// our credential. Other hosts are spoken to over https only, unless the site itself is not.
func (c *Client) get(ctx context.Context, w *object, a action, out io.Writer, look func(int64) error) error {
	u, err := url.Parse(a.Href)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || c.cfg.Site.Scheme != "http") {
		return failed(w, "Bitbucket names an address that is not https.")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return failed(w, "Bitbucket names an address that is none.")
	}
	for k, v := range a.Header {
		if !strings.EqualFold(k, "Host") {
			req.Header.Set(k, v)
		}
	}
	req.Header.Set("User-Agent", remote.UserAgent)
	res, err := c.http.Do(req)
	if err != nil {
		return cause(ctx, remote.Unreachable("The server of the LFS content", err))
	}
	defer func() { _ = res.Body.Close() }()
	switch status := res.StatusCode; {
	case status == http.StatusOK:
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusGone:
		return fmt.Errorf("%w: %w", errExpired, failed(w, "its download was refused (%d).", status))
	case status == http.StatusTooManyRequests, status >= 500:
		return remote.Unreachable("The server of the LFS content", fmt.Errorf("status %d", status))
	default:
		return failed(w, "its download was answered with status %d.", status)
	}
	if res.ContentLength >= 0 && res.ContentLength != w.size {
		return failed(w, "its content has %d bytes instead of %d.", res.ContentLength, w.size)
	}
	return c.receive(ctx, cancel, w, res.Body, out, look)
}

// receive copies the content, and holds it against size and hash.
func (c *Client) receive(ctx context.Context, cancel context.CancelCauseFunc, w *object, body io.Reader, out io.Writer, look func(int64) error) error {
	stalled := time.AfterFunc(c.cfg.Stall, func() {
		cancel(remote.Unreachable("The server of the LFS content", errors.New("stalled")))
	})
	defer stalled.Stop()
	enough := int64(slowest * c.cfg.Stall / time.Second)
	sum := sha256.New()
	buf := make([]byte, 128<<10)
	var got, moved, looked int64
	for {
		n, err := body.Read(buf)
		got += int64(n)
		if got > w.size {
			return failed(w, "its content is larger than the pointer says.")
		}
		if moved += int64(n); moved >= enough {
			moved = 0
			stalled.Reset(c.cfg.Stall)
		}
		_, _ = sum.Write(buf[:n])
		if _, err := out.Write(buf[:n]); err != nil {
			return fmt.Errorf("lfs: keep an LFS object: %w", err)
		}
		if got-looked >= DiskCheck {
			looked = got
			if err := look(got); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return cause(ctx, remote.Unreachable("The server of the LFS content", err))
		}
	}
	if got != w.size || hex.EncodeToString(sum.Sum(nil)) != w.oid {
		return failed(w, "its content is not what the pointer says.")
	}
	return nil
}
