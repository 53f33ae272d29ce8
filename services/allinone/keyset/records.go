package keyset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/services/allinone"
	"devpilot.io/bitbucket/services/allinone/backup"
)

// StoreSettings are those of the commands that look at what is stored. To embed in a kong struct.
type StoreSettings struct {
	backup.Stores `embed:""`
	Files         `embed:""`
}

// CheckSettings are those of `devpilot keyset check`. To embed in a kong struct.
type CheckSettings struct {
	StoreSettings `embed:""`

	Output string `name:"output" short:"o" default:"table" enum:"table,json" help:"A table, or json for programs."`
}

// RetireSettings are those of `devpilot keyset retire`. To embed in a kong struct.
type RetireSettings struct {
	StoreSettings `embed:""`

	EndBadges bool `name:"end-badges" help:"Also where links of badges were sealed with it: they end, and switching a badge off and on gives it another one."`
}

// Key is what is sealed with one key of a service. Its JSON is read by programs: fields are added and never renamed.
type Key struct {
	Service string         `json:"service"`
	ID      uint32         `json:"id"`
	Role    string         `json:"role"`            // seals, added, earlier, or missing: in none of the service's keys
	Sealed  int            `json:"sealed"`          // texts that reseal seals anew
	Stays   map[string]int `json:"stays,omitempty"` // texts that stay as they are, by what they are
}

// left is what keeps the key from being dropped.
func (k *Key) left(withoutBadges bool) (what []string) {
	if k.Sealed > 0 {
		what = append(what, fmt.Sprintf("%d texts: devpilot keyset reseal", k.Sealed))
	}
	for _, stays := range slices.Sorted(maps.Keys(k.Stays)) {
		if !withoutBadges || !strings.Contains(stays, "badges") {
			what = append(what, fmt.Sprintf("%d %s", k.Stays[stays], stays))
		}
	}
	return what
}

// open reads the keysets and connects to the stores, until end is called.
func (f StoreSettings) open(ctx context.Context) (files []*file, session *kv.Session, end func() error, err error) {
	if files, err = f.load(f.DataDir); err != nil {
		return nil, nil, nil, err
	}
	session, end, err = f.Reach(ctx, "devpilot-keyset")
	return files, session, end, err
}

// count finds out what is sealed with which key of the services of a file.
func count(ctx context.Context, session *kv.Session, f *file) (all []*Key, err error) {
	for _, service := range f.services {
		keys := map[uint32]*Key{}
		of := func(id uint32, role string) *Key {
			if keys[id] == nil {
				keys[id] = &Key{Service: service, ID: id, Role: role, Stays: map[string]int{}}
				all = append(all, keys[id])
			}
			return keys[id]
		}
		for _, id := range f.keyset.Earlier() {
			of(id, "earlier")
		}
		of(f.keyset.Primary(), "seals")
		for _, id := range f.keyset.KeyIDs() {
			of(id, "added")
		}
		if !slices.Contains(allinone.Sealers(), service) {
			continue
		}
		tally := func(id uint32, stays string) {
			if k := of(id, "missing"); stays == "" {
				k.Sealed++
			} else {
				k.Stays[stays]++
			}
		}
		id, there, err := installation.Canary(ctx, session, service)
		if err != nil {
			return nil, err
		}
		if there {
			tally(id, "")
		}
		for _, place := range allinone.Sealed(service) {
			if err := place.Count(ctx, session, tally); err != nil {
				return nil, fmt.Errorf("look at what is sealed in %s: %w", place.Bucket, err)
			}
		}
	}
	return all, nil
}

// Check is `devpilot keyset check`: it says what is sealed with which key, and fails where anything is with another than the one that seals.
func Check(ctx context.Context, p servicemain.Process, f CheckSettings) (err error) {
	files, session, end, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	all := []*Key{}
	for _, one := range files {
		keys, err := count(ctx, session, one)
		if err != nil {
			return err
		}
		all = append(all, keys...)
	}
	if err := show(p.Stdout, f.Output, all); err != nil {
		return err
	}
	earlier, missing := 0, 0
	for _, k := range all {
		n := k.Sealed
		for _, stays := range k.Stays {
			n += stays
		}
		switch k.Role {
		case "earlier":
			earlier += n
		case "missing":
			missing += n
		}
	}
	switch {
	case missing > 0:
		return fmt.Errorf("%d texts are sealed with keys that are in none of these keysets: nobody can read them without these keys", missing)
	case earlier > 0:
		return fmt.Errorf("%d texts are sealed with earlier keys: devpilot keyset reseal", earlier)
	}
	return nil
}

func show(w io.Writer, output string, all []*Key) error {
	if output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(map[string]any{"keys": all})
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tKEY\tROLE\tSEALED\tSTAYS")
	for _, k := range all {
		stays := []string{}
		for _, what := range slices.Sorted(maps.Keys(k.Stays)) {
			stays = append(stays, fmt.Sprintf("%d %s", k.Stays[what], what))
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%s\n", k.Service, k.ID, k.Role, k.Sealed, strings.Join(stays, "; "))
	}
	return t.Flush()
}

// tellEvery is after how many records a line is written.
const tellEvery = 100

// Reseal is `devpilot keyset reseal`: what earlier keys sealed is sealed anew, record by record, while Devpilot runs.
func Reseal(ctx context.Context, p servicemain.Process, f StoreSettings) (err error) {
	files, session, end, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	all := 0
	for _, one := range files {
		for _, service := range one.services {
			if !slices.Contains(allinone.Sealers(), service) {
				continue
			}
			if err := installation.SealAnew(ctx, session, seal.Shared(one.keyset, service)); err != nil {
				return err
			}
			n := 0
			for _, place := range allinone.Sealed(service) {
				err := place.Renew(ctx, session, one.keyset, func() {
					if n++; n%tellEvery == 0 {
						fmt.Fprintf(p.Stderr, "%s: %d records, in %s\n", service, n, place.Bucket)
					}
				})
				if err != nil {
					return err
				}
			}
			all += n
			fmt.Fprintf(p.Stdout, "%s: %d records were sealed anew.\n", service, n)
		}
	}
	_, err = fmt.Fprintf(p.Stdout, "Together %d. devpilot keyset check says what is left, devpilot keyset retire drops the earlier keys.\n", all)
	return err
}

// Retire is `devpilot keyset retire`: earlier keys are dropped once nothing is sealed with them.
func Retire(ctx context.Context, p servicemain.Process, f RetireSettings) (err error) {
	files, session, end, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	var kept []string
	for _, one := range files {
		keys, err := count(ctx, session, one)
		if err != nil {
			return err
		}
		var left []string
		for _, k := range keys {
			if what := k.left(f.EndBadges); k.Role == "earlier" && len(what) > 0 {
				left = append(left, fmt.Sprintf("%s: key %d stays, for with it are sealed %s", k.Service, k.ID, strings.Join(what, "; ")))
			}
		}
		if len(left) > 0 {
			kept = append(kept, left...)
			continue
		}
		if err := one.drop(p.Stdout); err != nil {
			return err
		}
	}
	if len(kept) > 0 {
		return errors.New(strings.Join(kept, "\n"))
	}
	_, err = fmt.Fprintln(p.Stdout, "Keep a copy of these keysets in another place than the backups, and those before for as long as you keep backups from then. Processes forget the earlier keys at their next start.")
	return err
}

// drop takes the earlier keys out of a file.
func (f *file) drop(w io.Writer) error {
	earlier := f.keyset.Earlier()
	if len(earlier) == 0 {
		_, err := fmt.Fprintf(w, "%s: there is no earlier key.\n", f)
		return err
	}
	next := f.keyset
	for _, id := range earlier {
		var err error
		if next, err = next.DropKey(id); err != nil {
			return err
		}
	}
	if err := f.save(next); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s: %d earlier keys were dropped.\n", f, len(earlier))
	return err
}
