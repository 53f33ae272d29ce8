package allinone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// signInTimeout bounds asking a running Devpilot for a sign-in code.
const signInTimeout = 10 * time.Second

// PrintSignInURL asks the Devpilot at address for a one-time sign-in link, with the admin token of
// the data directory, and prints it.
func PrintSignInURL(ctx context.Context, w io.Writer, address, dataDir string) error {
	token, err := ReadAdminToken(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no admin token in %s: name the data directory of the running Devpilot with --data-dir (DEVPILOT_DATA_DIR)", dataDir)
	}
	if err != nil {
		return err
	}
	target, err := url.JoinPath(address, "/v1/session/codes")
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, signInTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, http.NoBody)
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no Devpilot answers at %s (%w): start it, or say with --url where it is", address, err)
	}
	defer resp.Body.Close()
	var answer struct {
		URL    string `json:"signInUrl"`
		Detail string `json:"detail"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil {
		return fmt.Errorf("what answers at %s is not Devpilot (status %d)", address, resp.StatusCode)
	}
	if resp.StatusCode != http.StatusOK || answer.URL == "" {
		return fmt.Errorf("%s answered %d: %s", address, resp.StatusCode, answer.Detail)
	}
	_, err = fmt.Fprintln(w, answer.URL)
	return err
}

// signInCommand is the command that prints another link, from the directory this program was started
// in: with the address that is listened on, and the data directory where it is not the usual one.
func (p *Product) signInCommand(program string) string {
	words := []string{program, "sign-in", "--url", "http://" + Reachable(p.httpListener.Addr().String())}
	if dir := shortPath(p.dir.path); dir != DefaultDataDir {
		words = append(words, "--data-dir", dir)
	}
	for i, word := range words {
		if strings.ContainsFunc(word, unsafeInShell) {
			words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// Reachable is an address to call for one that is listened on: every address includes this machine's own.
func Reachable(listened string) string {
	host, port, err := net.SplitHostPort(listened)
	if err != nil {
		return listened
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.To4() == nil {
			host = "localhost" // by either family
		}
	}
	return net.JoinHostPort(host, port)
}

func unsafeInShell(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_./:,@%+=", r)
}
