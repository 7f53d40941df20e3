package dirlock

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"lockstep"
)

func TestADirectoryIsTakenOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Take(dir)
	if !errors.Is(err, lockstep.ErrConflict) || !strings.Contains(fmt.Sprint(err), fmt.Sprintf("%s is in use by process %d", dir, os.Getpid())) {
		t.Fatalf("a directory that is taken was taken again, or the error does not name its holder: %v", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	second, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Release(); err != nil {
		t.Fatal(err)
	}
}

// A program that is being started holds copies of our open files between its fork and
// its first instruction.
func TestAReleasedDirectoryIsFreeWhileAProgramStarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	copied, err := syscall.Dup(int(l.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Close(copied); err != nil {
			t.Error(err)
		}
	})
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	again, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestADirectoryThatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/none"
	if _, err := Take(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Fatalf("error is %v, want one that names %s", err, dir)
	}
}
