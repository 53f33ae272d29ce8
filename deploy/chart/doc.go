// Package chart holds the tests of the Helm chart beside it: it is linted, rendered as helm renders it, and every
// object is read strictly as the API server reads it.
package chart
