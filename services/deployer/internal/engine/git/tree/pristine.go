package tree

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A pristine copy is a tree that was written from a mirror and that nobody has touched since. Its
// manifest lists what it holds: for each file the object that it came from, and how the system
// describes it. The first tells what a new commit has to change without asking for objects of the
// old one, which the mirror may have lost; the second shows whether anybody touched it: whoever
// writes, renames, links or re-modes a file moves its change time, which no program can set, and
// whoever adds or removes one moves that of its directory.

// ErrPristine says that a pristine copy is of no use for a commit: damaged, touched, or too
// different from it. The directory may be changed in part: throw it away and check out in full.
var ErrPristine = errors.New("tree: the pristine copy cannot be used")

// kept is one entry of a manifest.
type kept struct {
	mode     string
	oid      string
	size     int64
	link     string
	replaced bool
	mark     mark
}

// mark is how the system describes a file.
type mark struct {
	inode   uint64
	changed int64 // ns
	size    int64
	bits    uint32
}

func markOf(st *unix.Stat_t) mark {
	m := mark{inode: st.Ino, changed: st.Ctim.Nano(), bits: st.Mode}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR { // a directory's size is the file system's own affair
		m.size = st.Size
	}
	return m
}

// manifest is what a pristine copy holds, by path. Directories have the mode of trees.
type manifest map[string]kept

const manifestHead = "devpilot pristine copy 1\n"

// describe records a tree that was just written.
func (p *Plan) describe(dir *os.Root) (manifest, error) {
	w, err := newWriter(dir)
	if err != nil {
		return nil, err
	}
	defer w.close()
	m := make(manifest, len(p.Entries))
	for i := range p.Entries {
		e := &p.Entries[i]
		if e.Mode == ModeSubmodule {
			continue
		}
		st, err := w.stat(e.Path)
		if err != nil {
			return nil, err
		}
		m[e.Path] = kept{mode: e.Mode, oid: e.OID, size: e.Size, link: e.link, replaced: e.replace != nil, mark: markOf(&st)}
	}
	for d := range p.directories() {
		st, err := w.stat(d)
		if err != nil {
			return nil, err
		}
		m[d] = kept{mode: ModeTree, mark: markOf(&st)}
	}
	return m, nil
}

func (m manifest) encode() []byte {
	b := []byte(manifestHead)
	str := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	for p, k := range m {
		str(p)
		str(k.mode)
		str(k.oid)
		str(k.link)
		b = binary.AppendVarint(b, k.size)
		b = binary.AppendVarint(b, k.mark.size)
		b = binary.AppendVarint(b, k.mark.changed)
		b = binary.AppendUvarint(b, k.mark.inode)
		b = binary.AppendUvarint(b, uint64(k.mark.bits))
		if k.replaced {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func parseManifest(b []byte) (manifest, error) {
	cut := len(b) - sha256.Size
	if cut < len(manifestHead) || !bytes.HasPrefix(b, []byte(manifestHead)) {
		return nil, fmt.Errorf("%w: its manifest is not one", ErrPristine)
	}
	if sum := sha256.Sum256(b[:cut]); !bytes.Equal(sum[:], b[cut:]) {
		return nil, fmt.Errorf("%w: its manifest is damaged", ErrPristine)
	}
	r := &fields{b: b[len(manifestHead):cut]}
	m := manifest{}
	for len(r.b) > 0 && !r.bad {
		p := r.str()
		k := kept{mode: r.str(), oid: r.str(), link: r.str(), size: r.varint()}
		k.mark = mark{size: r.varint(), changed: r.varint(), inode: r.uvarint(), bits: uint32(r.uvarint())} // written from one
		k.replaced = r.take(1) == "\x01"
		m[p] = k
	}
	if r.bad {
		return nil, fmt.Errorf("%w: its manifest cannot be read", ErrPristine)
	}
	return m, nil
}

// fields reads the parts of a manifest; bad stays once it ran out.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) take(n uint64) string {
	if n > uint64(len(f.b)) {
		f.bad, f.b = true, nil
		return ""
	}
	s := string(f.b[:n])
	f.b = f.b[n:]
	return s
}

func (f *fields) str() string { return f.take(f.uvarint()) }

func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.b)
	f.take(uint64(max(n, 0)))
	f.bad = f.bad || n <= 0
	return v
}

func (f *fields) varint() int64 {
	v, n := binary.Varint(f.b)
	f.take(uint64(max(n, 0)))
	f.bad = f.bad || n <= 0
	return v
}

// verify stats all that the copy holds. That costs a microsecond or two each and reads no file;
// that a disk gave a file other bytes than were written to it is not seen.
func (m manifest) verify(dir *os.Root) error {
	w, err := newWriter(dir)
	if err != nil {
		return err
	}
	defer w.close()
	paths := make([]string, 0, len(m))
	for p := range m {
		paths = append(paths, p)
	}
	slices.SortFunc(paths, byDirectory)
	for _, p := range paths {
		st, err := w.stat(p)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrPristine, err)
		}
		if markOf(&st) != m[p].mark {
			return fmt.Errorf("%w: %q was touched", ErrPristine, p)
		}
	}
	return nil
}

// byDirectory brings the entries of one directory together.
func byDirectory(a, b string) int {
	if c := strings.Compare(parent(a), parent(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

// minKept is which part of a tree, in percent, a copy must hold already to be worth changing.
const minKept = 50

// Update makes a pristine copy, of whatever commit, the tree of this one. It changes only what
// differs; the new tree is held to the same rules as one that is checked out in full. dir is the
// copy's directory, which is the caller's alone, and list its manifest as Copier returned it.
// ErrPristine means that the copy is of no use.
func (t *Tree) Update(ctx context.Context, dir *os.Root, list []byte, progress func(done, all int)) (Stats, error) {
	old, err := parseManifest(list)
	if err != nil {
		return Stats{}, err
	}
	// The copy is verified while git lists the tree.
	touched := make(chan error, 1)
	go func() { touched <- old.verify(dir) }()
	p, changed, same, err := t.compare(ctx, old)
	if verr := <-touched; err == nil {
		err = verr
	}
	if err != nil {
		return Stats{}, err
	}
	if err := t.Disk.Check(dir.Name()); err != nil {
		return Stats{}, err
	}
	if err := p.clear(dir, old); err != nil {
		return Stats{}, err
	}
	if err := p.write(ctx, dir, changed, progress); err != nil {
		return Stats{}, err
	}
	return p.stats(same), nil
}

// compare lists the tree, holds it to all rules, and tells what a copy lacks of it.
func (t *Tree) compare(ctx context.Context, old manifest) (p *Plan, changed []entry, same int, err error) {
	if p, err = t.List(ctx); err != nil {
		return nil, nil, 0, err
	}
	links := map[string]string{}
	for _, k := range old {
		if k.mode == ModeLink {
			links[k.oid] = k.link
		}
	}
	if err := p.resolve(ctx, links); err != nil {
		return nil, nil, 0, err
	}
	if changed, same = p.differ(old); same*100 < len(p.Entries)*minKept {
		return nil, nil, 0, fmt.Errorf("%w: only %d of %d files are the same", ErrPristine, same, len(p.Entries))
	}
	return p, changed, same, nil
}

// holds tells whether the copy has the entry as it is to be.
func (m manifest) holds(e *entry) bool {
	k, ok := m[e.Path]
	return ok && k.mode == e.Mode && k.oid == e.OID && k.size == e.Size && k.replaced == (e.replace != nil)
}

// differ tells which entries a copy lacks, and how many files it has. The places of submodules are
// made anew each time: it costs nothing where they are.
func (p *Plan) differ(old manifest) (changed []entry, same int) {
	for i := range p.Entries {
		switch e := &p.Entries[i]; {
		case e.Mode == ModeSubmodule:
			changed = append(changed, *e)
		case old.holds(e):
			same++
		default:
			changed = append(changed, *e)
		}
	}
	return changed, same
}

// clear removes from a copy what the tree has not, or has otherwise: first files and links, then
// the directories that nothing is left of, innermost first.
func (p *Plan) clear(dir *os.Root, old manifest) error {
	w, err := newWriter(dir)
	if err != nil {
		return err
	}
	defer w.close()
	stays := make(map[string]bool, len(p.Entries))
	for i := range p.Entries {
		if e := &p.Entries[i]; old.holds(e) {
			stays[e.Path] = true
		}
	}
	dirs := p.directories()
	var files, gone []string
	for path, k := range old {
		switch {
		case k.mode == ModeTree && !dirs[path]:
			gone = append(gone, path)
		case k.mode != ModeTree && !stays[path]:
			files = append(files, path)
		}
	}
	slices.SortFunc(files, byDirectory)
	for _, f := range files {
		if err := w.remove(f, false); err != nil {
			return err
		}
	}
	slices.SortFunc(gone, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	w.leave(0)
	for _, d := range gone {
		if err := w.remove(d, true); err != nil {
			return err
		}
	}
	return nil
}
