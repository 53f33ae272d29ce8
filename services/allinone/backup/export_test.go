package backup

// Streams and Passing are what a test compares with the reference.
var (
	Streams = streams
	Passing = passing
)
