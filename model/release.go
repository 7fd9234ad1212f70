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
var releases = []Release{{
	Name: "world-hd", Licence: "Apache-2.0", Width: 128, Height: 128,
	About: "the embedded model's larger sibling, for GPUs (docs/model/world-hd.md)",
	Files: []ReleaseFile{
		{"config.json", 3340, "034f6fdc58feb38bde91884b62116efc89225a31e4de73d8d87d58f38a272d97"},
		{"vocab.json", 892, "e860f47b4076067f0b1da2c74c87b3547070917ebb4f030903c99d22d9278b34"},
		{"weights.safetensors", 57_282_600, "c0d67032af0eb8bc98688793abc02be2ef8c1ddfe36d74a551212178ca99aa21"},
	},
}}

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
