package bitbucket

// ShortHash is a commit's hash as people are shown it: as many digits as Bitbucket's own pages show.
func ShortHash(hash string) string { return hash[:min(len(hash), 7)] }
