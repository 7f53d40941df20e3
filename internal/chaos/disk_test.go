package chaos_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// disk is a file system of the campaign's own, below the node's data directory.
type disk struct {
	dir   string
	image string // of a disk whose power can be cut
}

// smallDisk mounts a disk in memory. The reason says why there is none.
func smallDisk(t *testing.T, dir string, megabytes int) (d *disk, reason string) {
	t.Helper()
	if os.Getuid() != 0 {
		return nil, "a file system of one's own needs root"
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		return nil, fmt.Sprintf("no file system can be mounted here: %v", err)
	}
	d = &disk{dir: dir}
	t.Cleanup(func() { d.unmount(t) })
	return d, ""
}

func (d *disk) unmount(t *testing.T) {
	if d.dir == "" {
		return
	}
	if err := syscall.Unmount(d.dir, syscall.MNT_DETACH); err != nil {
		t.Error(err)
	}
}

// fill leaves no room on the disk, until free.
func (d *disk) fill() (free func() error, err error) {
	ballast := filepath.Join(d.dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for len(chunk) > 0 {
		if _, err := f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2] // to the last byte
		}
	}
	return func() error { return os.Remove(ballast) }, nil
}

// powerDisk mounts an image that keeps everything in memory that nobody has synced.
func powerDisk(t *testing.T, dir string, megabytes int) (d *disk, reason string) {
	t.Helper()
	if os.Getuid() != 0 {
		return nil, "mounting an image needs root"
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	d = &disk{image: filepath.Join(dir, "0.img")}
	if err := exec.Command("truncate", "-s", fmt.Sprintf("%dM", megabytes), d.image).Run(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", d.image).CombinedOutput(); err != nil {
		return nil, fmt.Sprintf("no ext4 can be made here: %v: %s", err, out)
	}
	if err := d.mount(filepath.Join(dir, "0")); err != nil {
		return nil, fmt.Sprintf("no image can be mounted here (are there loop devices?): %v", err)
	}
	t.Cleanup(func() { d.unmount(t) })
	return d, ""
}

// mount mounts the image; the journal commits every ten minutes, so only what is
// synced gets there.
func (d *disk) mount(at string) error {
	if err := os.MkdirAll(at, 0o711); err != nil {
		return err
	}
	out, err := exec.Command("mount", "-o", "loop,commit=600", d.image, at).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount: %w: %s", err, out)
	}
	d.dir = at
	return nil
}

// copyTo copies the image as it is on the disk now.
func (d *disk) copyTo(image string) error {
	out, err := exec.Command("cp", "--sparse=always", d.image, image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy the image: %w: %s", err, out)
	}
	return nil
}

// swap throws the disk away and goes on with a copy of it, as after a power cut.
func (d *disk) swap(image, at string) error {
	old, oldDir := d.image, d.dir
	err := errors.Join(syscall.Unmount(oldDir, 0), os.Remove(old), os.Remove(oldDir))
	if err != nil {
		return err
	}
	d.image = image
	return d.mount(at)
}
