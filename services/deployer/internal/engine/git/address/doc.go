// Package address is about names only: which branches and repositories there can be, where git finds
// a repository, and which one an address in .gitmodules means. It asks nobody.
package address
