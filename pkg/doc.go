// Package pkg is the module of what two services need and what could live in a repository of
// its own. It holds no code itself; each directory below is a package with a doc comment that
// says what it does and what it depends on.
package pkg
