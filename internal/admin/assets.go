package admin

import (
	"embed"
	"io/fs"
	"net/http"
	"path"
)

// The dashboard is a page, its style and a few scripts, served as they are: there is no build step.
//
//go:embed dashboard
var dashboard embed.FS

// assetTypes are fixed here because on Windows package mime asks the registry, where any program may have
// made a script something that a browser, told not to sniff, does not run.
var assetTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

func serveDashboard(mux *http.ServeMux) {
	files, err := dashboard.ReadDir("dashboard")
	if err != nil {
		panic(err) // it is part of the binary
	}
	for _, f := range files {
		pattern := "/dashboard/" + f.Name()
		if f.Name() == "index.html" {
			pattern = "/{$}"
		}
		mux.Handle(pattern, asset(f.Name()))
	}
}

func asset(name string) http.Handler {
	body, err := fs.ReadFile(dashboard, "dashboard/"+name)
	if err != nil {
		panic(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", assetTypes[path.Ext(name)])
		w.Write(body)
	})
}
