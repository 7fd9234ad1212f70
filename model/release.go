package model

import "strings"

// Release is a model of this project whose weights are too large to be embedded: what its files must be. Where they are had from
// is the user's to say ("models pull").
type Release struct {
	Name, Licence, About string
	Width, Height        int // of its frames
	Files                []ReleaseFile
}

// ReleaseFile is a file by name, length and SHA-256.
type ReleaseFile struct {
	Name   string
	Bytes  int64
	SHA256 string
}

// releases are all there are; train/README.md says how they were made.
var releases = []Release{}

// Releases returns all of them.
func Releases() []Release { return releases }

// ReleaseNamed finds a release.
func ReleaseNamed(name string) (Release, bool) {
	for _, r := range releases {
		if r.Name == name {
			return r, true
		}
	}
	return Release{}, false
}

// Released names all releases.
func Released() string {
	var out []string
	for _, r := range releases {
		out = append(out, r.Name)
	}
	return strings.Join(out, ", ")
}
