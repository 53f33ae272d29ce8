package server

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/services/repo/internal/catalog"
)

func (s *Server) repository(r catalog.Repository) *repov1.Repository {
	return &repov1.Repository{
		Id: r.ID, FullName: r.FullName, Name: r.Name, BitbucketWorkspace: r.WorkspaceSlug, BitbucketWorkspaceId: r.WorkspaceID,
		Private: r.Private, MainBranch: r.MainBranch, UpdateTime: timestamp(r.UpdateTime), Permission: permission(r.Permission),
		HtmlUrl: s.site.RepositoryURL(r.FullName),
	}
}

func permission(p bitbucket.Permission) repov1.Repository_Permission {
	switch p {
	case bitbucket.PermissionRead:
		return repov1.Repository_READ
	case bitbucket.PermissionWrite:
		return repov1.Repository_WRITE
	case bitbucket.PermissionAdmin:
		return repov1.Repository_ADMIN
	case bitbucket.PermissionNone:
	}
	return repov1.Repository_PERMISSION_UNSPECIFIED
}

func failures(list []catalog.Failure) []*repov1.PartialFailure {
	var out []*repov1.PartialFailure
	for _, f := range list {
		out = append(out, &repov1.PartialFailure{BitbucketWorkspace: f.Workspace, Reason: string(f.Reason), Message: f.Message})
	}
	return out
}

func (s *Server) branch(b catalog.Branch, fullName string) *repov1.Branch {
	return &repov1.Branch{
		Name: b.Name, Default: b.Default,
		Commit: s.commit(bitbucket.Commit{Hash: b.Hash, Message: b.Message, AuthorName: b.AuthorName, AuthorEmail: b.AuthorEmail, Time: b.Time}, fullName),
	}
}

func (s *Server) commit(c bitbucket.Commit, fullName string) *repov1.BranchCommit {
	return &repov1.BranchCommit{
		Hash: c.Hash, Message: c.Message, AuthorName: c.AuthorName, AuthorEmail: c.AuthorEmail, Time: timestamp(c.Time),
		Url: s.site.CommitURL(fullName, c.Hash),
	}
}

// timestamp leaves a time that is not known absent.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
