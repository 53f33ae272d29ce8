// Package trees removes and measures directory trees that commands of strangers made: of any depth,
// with names of any kind, directories closed to their owner, and links that lead anywhere. However deep
// they are, it holds a handful of descriptors and never follows a link.
//
// Depends on no other package of ours.
package trees
