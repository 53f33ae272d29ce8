// Package systemd holds the tests of the unit files beside it.
package systemd
