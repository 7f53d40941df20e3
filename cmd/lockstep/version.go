package main

import (
	"runtime"
	"runtime/debug"
)

// released is set by the linker: -X main.released=v1.2.3.
var released string

// version returns the version of this binary: the release, else the commit that it
// was built from.
func version() string {
	if released != "" {
		return released
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}

type versionCmd struct{}

// Run writes the version.
func (versionCmd) Run(p printer) error {
	about := struct {
		Version  string `json:"version"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
	}{version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if p.format == "table" {
		_, err := p.out.Write([]byte("lockstep " + about.Version + " (" + about.Go + ", " + about.Platform + ")\n"))
		return err
	}
	return p.result(about, table{})
}
