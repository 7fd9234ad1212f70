package serve

import (
	"embed"
	"io/fs"
	"net/http"
	"path"
)

//go:embed page/*.html page/*.js page/*.css page/*.svg
var pageFiles embed.FS

// page serves the embedded page. It holds no secret and needs no token; what it asks for does.
func (s *Server) page(mux *http.ServeMux) {
	kinds := map[string]string{".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
	names, err := fs.ReadDir(pageFiles, "page")
	if err != nil {
		panic(err) // embedded
	}
	for _, entry := range names {
		b, err := fs.ReadFile(pageFiles, "page/"+entry.Name())
		if err != nil {
			panic(err)
		}
		at := "GET /" + entry.Name()
		if entry.Name() == "index.html" {
			at = "GET /{$}"
		}
		kind := kinds[path.Ext(entry.Name())]
		mux.HandleFunc(at, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Cache-Control", "no-cache")
			_, _ = w.Write(b)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.fail(w, notFound("page", r.URL.Path)) })
}
