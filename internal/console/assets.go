package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
)

//go:embed templates
var templates embed.FS

// static is what browsers load. What is below vendor is other people's work, copied by
// `make assets` from the packages that assets/package-lock.json names, with their
// licences.
//
//go:embed static
var static embed.FS

// assets serves what pages load, for ever: their addresses hold a fingerprint.
func (s *Console) assets() {
	files := http.FileServerFS(static)
	s.mux.HandleFunc("GET "+Prefix+"static/", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			http.NotFound(w, r) // no listings
			return
		}
		w.Header().Set("Cache-Control", "no-cache")
		if r.URL.Query().Get("v") == s.version {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		http.StripPrefix(strings.TrimSuffix(Prefix, "/"), files).ServeHTTP(w, r)
	})
}

// fingerprint changes when any of the assets does.
func fingerprint() (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(static, "static", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := static.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n", path, len(content))
		_, _ = sum.Write(content) // a hash takes everything
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the assets of the console: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)[:6]), nil
}
