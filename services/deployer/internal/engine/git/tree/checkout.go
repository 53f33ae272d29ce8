package tree

import (
	"context"
	"io"
	"os"
	"runtime"
	"sync"
)

// Checkout writes the commit's files into an empty directory, without a .git of its own. progress,
// if not nil, hears how many of the files are written, from one goroutine at a time. Files have
// exactly the bytes of the commit: no filter runs, no line end is changed. ErrDamaged means that
// the mirror lacks objects.
func (t *Tree) Checkout(ctx context.Context, dir *os.Root, progress func(done, all int)) (Stats, error) {
	p, err := t.List(ctx)
	if err != nil {
		return Stats{}, err
	}
	if err := p.resolve(ctx, nil); err != nil {
		return Stats{}, err
	}
	if err := t.Disk.Check(dir.Name()); err != nil {
		return Stats{}, err
	}
	if err := p.write(ctx, dir, p.Entries, progress); err != nil {
		return Stats{}, err
	}
	return p.stats(0), nil
}

func (p *Plan) stats(kept int) Stats {
	st := Stats{Bytes: p.bytes, Kept: kept}
	for i := range p.Entries {
		if p.Entries[i].Mode != ModeSubmodule {
			st.Files++
		}
	}
	return st
}

// resolve reads where symbolic links point, and refuses those that leave the tree. known are
// targets that need not be read, by object id.
func (p *Plan) resolve(ctx context.Context, known map[string]string) error {
	var unread []*entry
	var total int64
	for i := range p.Entries {
		e := &p.Entries[i]
		if e.Mode != ModeLink {
			continue
		}
		if total += e.Size; total > maxLinkBytes {
			return Refuse("its symbolic links are larger than %d MiB together.", maxLinkBytes>>20)
		}
		if target, ok := known[e.OID]; ok {
			e.link = target
		} else if e.link == "" {
			unread = append(unread, e)
		}
	}
	err := p.blobs(ctx, unread, false, func(e *entry, body *blob) error {
		b, err := io.ReadAll(body)
		e.link = string(b)
		return err
	})
	if err != nil {
		return err
	}
	return checkLinks(p.Entries, p.directory)
}

const (
	// Fewer files, and fewer bytes, than these are not worth a second git.
	shardFiles = 1000
	shardBytes = 8 << 20 // bytes of files that one writer takes at a time
	maxShards  = 4       // writers of a checkout
	// diskEvery is how many bytes are written between two checks of the disk; a file counts as a
	// block at least.
	diskEvery = 32 << 20
	blockSize = 4096 // what a file takes on the disk at least
)

// shards cuts files into parts of about the same cost, to be written side by side. Creating files
// and inflating their contents cost about the same, and each part has a git and a writer, so that
// there are as many parts as processors.
func shards(files []*entry) [][]*entry {
	var cost int64
	for _, e := range files {
		cost += e.Size + blockSize
	}
	n := min(maxShards, runtime.GOMAXPROCS(0))
	if len(files) < shardFiles && cost < shardBytes {
		n = 1
	}
	var out [][]*entry
	var sum int64
	from := 0
	for i, e := range files {
		sum += e.Size + blockSize
		if sum >= cost/int64(n)+1 || i == len(files)-1 {
			out = append(out, files[from:i+1])
			from, sum = i+1, 0
		}
	}
	return out
}

// write writes those entries, which are not there yet, below dir.
func (p *Plan) write(ctx context.Context, dir *os.Root, entries []entry, progress func(done, all int)) error {
	if err := checkCase(dir, p.Entries); err != nil {
		return err
	}
	var files []*entry
	for i := range entries {
		if entries[i].regular() {
			files = append(files, &entries[i])
		}
	}
	j := &job{plan: p, dir: dir, all: len(files), progress: progress}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	for _, part := range shards(files) {
		wg.Go(func() {
			if err := j.files(ctx, part, false); err != nil {
				stop(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return j.rest(entries)
}

// job is the writing of entries into one directory.
type job struct {
	plan     *Plan
	dir      *os.Root
	all      int
	progress func(done, all int)
	pause    func(ctx context.Context) error // between files, if not nil
	reserve  uint64                          // free space to leave beyond the usual

	mu      sync.Mutex
	done    int
	unasked int64 // bytes since the disk was checked
}

// files writes regular files.
func (j *job) files(ctx context.Context, files []*entry, low bool) error {
	w, err := newWriter(j.dir)
	if err != nil {
		return err
	}
	defer w.close()
	return j.plan.contents(ctx, files, low, func(e *entry, body io.Reader) error {
		if e.Size >= diskEvery {
			body = j.metered(ctx, body)
		}
		if err := w.file(e, body); err != nil {
			return err
		}
		return j.wrote(ctx, e)
	})
}

func (j *job) wrote(ctx context.Context, e *entry) error {
	if err := j.spend(min(e.Size, diskEvery-1) + blockSize); err != nil {
		return err
	}
	j.mu.Lock()
	j.done++
	if j.progress != nil && j.done%256 == 0 {
		j.progress(j.done, j.all)
	}
	done := j.done
	j.mu.Unlock()
	if j.pause != nil && done%64 == 0 {
		return j.pause(ctx)
	}
	return nil
}

// spend checks the disk now and then.
func (j *job) spend(n int64) error {
	j.mu.Lock()
	j.unasked += n
	look := j.unasked >= diskEvery
	if look {
		j.unasked = 0
	}
	j.mu.Unlock()
	if !look {
		return nil
	}
	return j.plan.root.Disk.checkMore(j.dir.Name(), j.reserve)
}

// rest makes the links and the places of submodules. Links come last: while files are written, no
// path leads through one.
func (j *job) rest(entries []entry) error {
	w, err := newWriter(j.dir)
	if err != nil {
		return err
	}
	defer w.close()
	for i := range entries {
		switch e := &entries[i]; e.Mode {
		case ModeLink:
			err = w.link(e)
		case ModeSubmodule:
			err = w.directory(e.Path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// metered checks the disk, and whether the file is still wanted, while one large file is written.
func (j *job) metered(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		n, err := r.Read(p)
		if serr := j.spend(int64(n)); serr != nil {
			return n, serr
		}
		return n, err
	})
}
