package emulator

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// seedTime dates everything seeded, so that seeded commits have the same hashes everywhere.
var seedTime = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// scenario is a seed and, where it is about behaviour, switches.
type scenario struct {
	name   string
	about  string
	adjust func(*Switches)
	build  func(*seeder)
}

var scenarios = []scenario{
	{"", "nothing at all", func(*Switches) {}, func(*seeder) {}},
	{"sample", "two Bitbucket workspaces with a handful of repositories", func(*Switches) {}, sampleSeed},
	{"ten-thousand", "10,000 repositories over 20 Bitbucket workspaces", func(*Switches) {}, tenThousandSeed},
	{"not-admin", "jane-dev may write everywhere but is an admin of nothing", func(*Switches) {}, notAdminSeed},
	{"expired", "access tokens live a minute; three minutes after consent the whole grant is dead", func(s *Switches) {
		s.Tokens.AccessTTL, s.Tokens.GrantTTL = time.Minute, 3*time.Minute
	}, sampleSeed},
	{"rate-limited", "30 calls an hour, then 429", func(s *Switches) {
		s.RateLimit = RateLimit{Budget: 30, Window: time.Hour, Per: "consumer"}
	}, sampleSeed},
}

// Scenarios names what Options.Scenario may be.
func Scenarios() []string {
	var names []string
	for _, s := range scenarios {
		if s.name != "" {
			names = append(names, s.name)
		}
	}
	return names
}

func scenarioByName(name string) (scenario, error) {
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
	if i < 0 {
		return scenario{}, fmt.Errorf("emulator: there is no scenario %q; there are %s", name, strings.Join(Scenarios(), ", "))
	}
	return scenarios[i], nil
}

// seeder collects what a scenario wants to exist; keep has the UUIDs of its workspaces and repositories.
type seeder struct {
	st      *state
	changes []change
	keep    map[string]bool
}

func (s *seeder) account(username, nickname, display, email, accountID string) *Account {
	a := &Account{
		UUID: SeededUUID("account", username), AccountID: accountID, Username: username, Nickname: nickname, DisplayName: display,
		Email: email, Password: username + "-password", CreatedOn: seedTime.AddDate(-3, 0, 0),
	}
	s.st.accounts[a.UUID] = a
	s.changes = append(s.changes, change{bucketAccounts, a.UUID, a})
	return a
}

func (s *seeder) workspace(slug, name string, members map[string]string) *Workspace {
	ws := &Workspace{
		UUID: SeededUUID("workspace", slug), Slug: slug, Name: name, Private: true,
		CreatedOn: seedTime.AddDate(-2, 0, 0), Members: members,
	}
	return s.put(ws)
}

// personal makes the account's own workspace, whose UUID is the account's (BITBUCKET.md#user).
func (s *seeder) personal(a *Account) *Workspace {
	return s.put(&Workspace{
		UUID: a.UUID, Slug: a.Username, Name: a.DisplayName, Personal: true, Private: true, CreatedOn: a.CreatedOn,
		Members: map[string]string{a.UUID: "owner"},
	})
}

func (s *seeder) put(ws *Workspace) *Workspace {
	s.st.workspaces[ws.UUID], s.keep[ws.UUID] = ws, true
	s.changes = append(s.changes, change{bucketWorkspaces, ws.UUID, ws})
	return ws
}

// repository keeps what was pushed to an existing one: only its permissions are set again.
func (s *seeder) repository(ws *Workspace, slug, name, seed string, private bool, permissions map[string]string) {
	repo := &Repository{
		UUID: SeededUUID("repository", ws.Slug+"/"+slug), Workspace: ws.UUID, Slug: slug, Name: name, Private: private,
		ProjectKey: "MAIN", ProjectName: "Main", CreatedOn: seedTime.AddDate(0, -6, 0), UpdatedOn: seedTime, Seed: seed,
	}
	if seed != "" {
		repo.MainBranch = "main"
	}
	if known := s.st.repositories[repo.UUID]; known != nil {
		kept := *known
		repo = &kept
	}
	repo.Permissions = permissions
	s.st.repositories[repo.UUID], s.keep[repo.UUID] = repo, true
	s.changes = append(s.changes, change{bucketRepos, repo.UUID, repo})
}

// seed applies a scenario once: a restart with the same scenario changes nothing. Another scenario is another world, and
// what is not in it goes; accounts, grants and tokens stay, and so does what was pushed to repositories that both have.
func (e *Emulator) seed(wanted scenario) error {
	var applied string
	err := e.store.db.View(func(tx *bolt.Tx) error {
		if raw := tx.Bucket([]byte(bucketMeta)).Get([]byte("scenario")); raw != nil {
			return json.Unmarshal(raw, &applied)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("emulator: read scenario: %w", err)
	}
	if wanted.name == "" || wanted.name == applied {
		return nil
	}
	s := &seeder{st: e.st, keep: map[string]bool{}, changes: []change{{bucketMeta, "scenario", wanted.name}}}
	wanted.build(s)
	e.st.index()
	if applied != "" {
		if err := e.dropWorld(s); err != nil {
			return err
		}
	}
	return e.store.write(s.changes...)
}

// dropWorld removes what the seeder does not keep.
func (e *Emulator) dropWorld(s *seeder) error {
	for id := range maps.Clone(e.st.repositories) {
		if s.keep[id] {
			continue
		}
		if err := e.git.remove(id); err != nil {
			return err
		}
		s.changes = append(s.changes, e.st.forget(id)...)
	}
	for id := range e.st.workspaces {
		if !s.keep[id] {
			delete(e.st.workspaces, id)
			s.changes = append(s.changes, change{bucketWorkspaces, id, nil})
		}
	}
	return nil
}

func (s *seeder) people() (jane, admin *Account) {
	jane = s.account("jane-dev", "Jane", "Jane Developer", "jane@example.test", "557058:9a1b2c3d-aaaa-bbbb-cccc-1234567890ab")
	admin = s.account("acme-admin", "Acme Admin", "Acme Admin", "admin@acme.example.test", "712020:0c0ffee0-1111-4222-8333-444455556666")
	return jane, admin
}

// sampleSeed has every situation a person may want to see.
func sampleSeed(s *seeder) {
	jane, admin := s.people()
	acme := s.workspace("acme", "Acme", map[string]string{jane.UUID: "member", admin.UUID: "owner"})
	as := func(permission string) map[string]string { return map[string]string{jane.UUID: permission} }
	s.repository(acme, "web", "Web", "site", true, as("admin"))
	s.repository(acme, "api", "API", "service", true, as("admin"))
	s.repository(acme, "docs", "Docs", "site", false, as("write"))
	s.repository(acme, "legacy", "Legacy", "service", true, as("read"))
	s.repository(acme, "payroll", "Payroll", "service", true, nil)
	s.repository(acme, "empty", "Empty", "", true, as("admin"))
	own := s.personal(jane)
	s.repository(own, "site", "Site", "site", true, nil)
	s.repository(own, "notes", "Notes", "service", true, nil)
}

func notAdminSeed(s *seeder) {
	jane, admin := s.people()
	acme := s.workspace("acme", "Acme", map[string]string{jane.UUID: "member", admin.UUID: "owner"})
	write := map[string]string{jane.UUID: "write"}
	for slug, seed := range map[string]string{"web": "site", "api": "service", "docs": "site", "legacy": "service", "empty": ""} {
		s.repository(acme, slug, strings.ToUpper(slug[:1])+slug[1:], seed, true, maps.Clone(write))
	}
}

func tenThousandSeed(s *seeder) {
	jane, admin := s.people()
	for w := range 20 {
		slug := fmt.Sprintf("team-%02d", w+1)
		ws := s.workspace(slug, fmt.Sprintf("Team %02d", w+1), map[string]string{jane.UUID: "member", admin.UUID: "owner"})
		ws.DefaultPermission = "admin"
		for r := range 500 {
			name := fmt.Sprintf("service-%02d-%03d", w+1, r+1)
			s.repository(ws, name, name, "site", true, nil)
			s.st.repositories[SeededUUID("repository", slug+"/"+name)].UpdatedOn = seedTime.Add(time.Duration(w*500+r) * time.Minute)
		}
	}
}

// seeds are what seedChanges knows.
var seeds = []string{"", "site", "service", "stranger"}

// seedChanges are the commits a seeded repository starts with.
func seedChanges(repo *Repository) []RefChange {
	commit := func(hours int, message string, files map[string]string) CommitSpec {
		return CommitSpec{Message: message, Files: files, Time: seedTime.Add(time.Duration(hours) * time.Hour)}
	}
	page := func(title string) map[string]string {
		return map[string]string{"index.html": "<!doctype html>\n<title>" + repo.Name + "</title>\n<h1>" + title + "</h1>\n"}
	}
	readme := map[string]string{"README.md": "# " + repo.Name + "\n\nA sample repository of the Bitbucket emulator.\n"}
	switch repo.Seed {
	case "site":
		return []RefChange{
			{Branch: "main", Orphan: true, Commits: []CommitSpec{
				commit(0, "Start", readme),
				commit(1, "Add the page", page("Hello")),
				commit(2, "Say who we are", page("Hello from "+repo.Name)),
			}},
			{Branch: "develop", From: "main", Commits: []CommitSpec{commit(3, "Try a new title", page("What comes next"))}},
			{Branch: "feature/login", From: "main", Commits: []CommitSpec{
				commit(4, "Add a login page", map[string]string{"login.html": "<!doctype html>\n<h1>Sign in</h1>\n"}),
			}},
			{Branch: "release/1.0", From: "main"},
			{Tag: "v1.0", From: "main", Annotation: "Release 1.0"},
		}
	case "service":
		return []RefChange{
			{Branch: "main", Orphan: true, Commits: []CommitSpec{
				commit(0, "Start", readme),
				commit(1, "Add a start script", map[string]string{"start.sh": "#!/bin/sh\necho " + repo.Slug + " is up\n"}),
			}},
			{Branch: "staging", From: "main"},
		}
	case "stranger":
		return []RefChange{{Branch: "main", Orphan: true, Commits: []CommitSpec{
			commit(5, "Another repository", map[string]string{"index.html": "<h1>stranger " + repo.UUID + "</h1>\n"}),
		}}}
	default:
		return nil
	}
}
