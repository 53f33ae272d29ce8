package uploadpack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Distance is how a commit stands to an older one.
type Distance struct {
	// Commits is how many commits the one has in its history, itself counted, that the older one has not.
	Commits int
	// Apart says that the one does not contain the older one: a forced push took it off.
	Apart bool
}

// Distance counts the commits from one to another. Nothing but the beginnings of two packs is read: a pack
// without trees and files says at its beginning how many commits it holds. Both hashes are of commits.
//
// The older commit comes first: only a server that has it leaves out what is known of it when it is asked
// for the other, and would count all history otherwise. One that does not give it by its hash says at least
// whether it has it; where it has, the distance is not known, and ErrVersion says so.
func (s *Session) Distance(ctx context.Context, older, newer string) (Distance, error) {
	if !s.able.filter {
		return Distance{}, ErrVersion
	}
	lost, err := s.between(ctx, newer, older)
	var refused *RemoteError
	switch {
	case errors.As(err, &refused):
		has, err := s.has(ctx, newer, older)
		if err == nil && has {
			err = ErrVersion
		}
		return Distance{Apart: err == nil}, err
	case err != nil:
		return Distance{}, err
	}
	n, err := s.between(ctx, older, newer)
	return Distance{Commits: n, Apart: lost > 0}, err
}

// between counts the commits that lead to one and not to another, which the server must have.
func (s *Session) between(ctx context.Context, without, to string) (n int, err error) {
	command := s.commits(to)
	command = appendLine(command, "have "+without)
	command = append(appendLine(command, "done"), flushLine...)
	err = s.c.ask(ctx, s.q, http.MethodPost, askPath, resultType, command, func(sc *scanner) error {
		if _, err := s.boundary(sc); err != nil {
			return err
		}
		n, err = objects(&packReader{sc: sc, done: func() {}})
		return err
	})
	return n, err
}

// commits begins a request for a commit and what it leads to, without trees and files.
func (s *Session) commits(to string) []byte {
	command := s.command("fetch")
	for _, line := range []string{"no-progress", "filter tree:0", "want " + to} {
		command = appendLine(command, line)
	}
	return command
}

// objects reads how many objects a pack holds.
func objects(pack io.Reader) (int, error) {
	var head struct {
		Magic            [4]byte
		Version, Objects uint32
	}
	err := binary.Read(pack, binary.BigEndian, &head)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, protocolError("a pack without a beginning")
	}
	if err != nil {
		return 0, fmt.Errorf("uploadpack: read the beginning of a pack: %w", err)
	}
	if string(head.Magic[:]) != "PACK" || head.Objects > maxCommits {
		return 0, protocolError("a pack that begins with %q and holds %d objects", head.Magic, head.Objects)
	}
	return int(head.Objects), nil
}

// maxCommits bounds what is believed of a pack.
const maxCommits = 1 << 30

// has tells whether the server has a commit, without asking for it.
func (s *Session) has(ctx context.Context, want, commit string) (found bool, err error) {
	command := append(appendLine(s.commits(want), "have "+commit), flushLine...)
	err = s.c.ask(ctx, s.q, http.MethodPost, askPath, resultType, command, func(sc *scanner) error {
		line, k, err := sc.next()
		if err == nil && (k != data || string(line) != "acknowledgments") {
			err = protocolError("expected acknowledgments, got %.100q", line)
		}
		if err != nil {
			return err
		}
		line, k, err = sc.next()
		if err == nil && k != data {
			err = protocolError("an empty acknowledgment")
		}
		found = err == nil && string(line) == "ACK "+commit
		return err
	})
	return found, err
}
