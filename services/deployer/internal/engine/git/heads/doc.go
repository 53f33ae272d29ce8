// Package heads asks Bitbucket for branches and tags with their commits, and whether a repository is still
// reached. It holds no copy of anything and needs no directory: the role api has it and no mirror.
//
// It asks over connections that stay open (engine/git/uploadpack); a server that speaks an older version of
// git's protocol is left to git ls-remote. A refusal means the same either way.
//
// Depends on engine/git/{address,uploadpack,program,remote}.
package heads
