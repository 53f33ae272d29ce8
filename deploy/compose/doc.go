// Package compose holds the tests of compose.yaml.
package compose
