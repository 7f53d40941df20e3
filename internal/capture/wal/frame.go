package wal

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	// readBuffer holds some hundred rows: the more one read brings, the fewer
	// system calls and wake-ups a row costs.
	readBuffer = 512 << 10
	// maxFrame is more than Postgres can send: its buffers end at 1 GiB.
	maxFrame = 1<<30 + 1<<20

	frameHead = 5 // type byte, length
)

// frameReader cuts the messages of the wire protocol out of a byte stream, in
// place. It is used by one goroutine.
type frameReader struct {
	src  io.Reader
	base int    // size to which the buffer returns after a large frame
	buf  []byte // buf[r:w] is read and not yet cut
	r, w int
	need int // bytes that the frame at buf[r] needs in all; 0: not known yet
}

func newFrameReader(src io.Reader, size int) *frameReader {
	return &frameReader{src: src, base: size, buf: make([]byte, size)}
}

// next returns the next complete frame's type and body, or false when more must
// be read first. The body is valid until fill is called.
func (f *frameReader) next() (kind byte, body []byte, ok bool, err error) {
	have := f.w - f.r
	if have < frameHead {
		f.need = 0
		return 0, nil, false, nil
	}
	size := binary.BigEndian.Uint32(f.buf[f.r+1:])
	if size < 4 || size > maxFrame {
		return 0, nil, false, fmt.Errorf("frame %q of %d bytes: the replication stream is damaged", f.buf[f.r], size)
	}
	f.need = 1 + int(size)
	if have < f.need {
		return 0, nil, false, nil
	}
	kind, body = f.buf[f.r], f.buf[f.r+frameHead:f.r+f.need]
	f.r += f.need
	return kind, body, true, nil
}

// fill reads once, after making room for at least the frame that is begun. It
// returns how many bytes arrived.
func (f *frameReader) fill() (int, error) {
	f.makeRoom()
	n, err := f.src.Read(f.buf[f.w:])
	f.w += n
	if n > 0 {
		return n, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return 0, err
}

func (f *frameReader) makeRoom() {
	rest := f.w - f.r
	switch {
	case f.need > len(f.buf):
		grown := make([]byte, f.need)
		copy(grown, f.buf[f.r:f.w])
		f.buf = grown
	case len(f.buf) > f.base && f.need <= f.base && rest <= f.base:
		shrunk := make([]byte, f.base)
		copy(shrunk, f.buf[f.r:f.w])
		f.buf = shrunk
	case f.r == 0:
		return
	case rest == 0 || f.r+max(f.need, frameHead) > len(f.buf) || f.w == len(f.buf):
		copy(f.buf, f.buf[f.r:f.w])
	default:
		return
	}
	f.r, f.w = 0, rest
}

// boundedReader hands out at most the rest of the message that is being read, so
// that the driver, whose reader takes all it can get, buffers nothing of what
// follows the answer that starts replication. Once free, it is a plain reader.
type boundedReader struct {
	src  io.Reader
	head [frameHead]byte
	n    int // bytes of head read
	left int // bytes of the body still to come
	free bool
}

// Read implements io.Reader.
func (b *boundedReader) Read(p []byte) (int, error) {
	if b.free || len(p) == 0 {
		return b.src.Read(p)
	}
	if b.left > 0 {
		n, err := b.src.Read(p[:min(len(p), b.left)])
		b.left -= n
		return n, err
	}
	n, err := b.src.Read(p[:min(len(p), frameHead-b.n)])
	copy(b.head[b.n:], p[:n])
	if b.n += n; b.n == frameHead {
		b.n, b.left = 0, max(0, int(binary.BigEndian.Uint32(b.head[1:]))-4)
	}
	return n, err
}
