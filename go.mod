module longtake

go 1.26.0

require (
	github.com/deepteams/webp v1.1.0
	github.com/ebitengine/purego v0.11.3 // indirect
	golang.org/x/image v0.36.0
	golang.org/x/sys v0.49.0 // indirect
)
