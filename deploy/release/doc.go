// Package release holds the tests of what .ci/release builds: they build it, twice, and look into it.
package release
