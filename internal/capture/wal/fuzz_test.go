package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"testing"

	"lockstep"
)

// Messages of pgoutput, written out by hand, as a start for the fuzzer.
func seeds() [][]byte {
	text := func(b []byte, s string) []byte { return append(append(b, s...), 0) }
	begin := append([]byte{'B', 0, 0, 0, 0, 0, 0, 1, 0}, make([]byte, 12)...)
	commit := append([]byte{'C', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 48}, make([]byte, 8)...)
	relation := append(text(text([]byte{'R', 0, 0, 0, 9}, "public"), "a"), 'd', 0, 2)
	relation = append(text(append(relation, 1), "id"), 0, 0, 0, 23, 255, 255, 255, 255)
	relation = append(text(append(relation, 0), "v"), 0, 0, 0, 25, 255, 255, 255, 255)
	tuple := []byte{0, 2, 't', 0, 0, 0, 1, '7', 'n'}
	insert := append([]byte{'I', 0, 0, 0, 9, 'N'}, tuple...)
	update := append(append([]byte{'U', 0, 0, 0, 9, 'K'}, tuple...), append([]byte{'N', 0, 2, 't', 0, 0, 0, 1, '8'}, 'u')...)
	remove := append([]byte{'D', 0, 0, 0, 9, 'O'}, tuple...)
	truncate := []byte{'T', 0, 0, 0, 1, 0, 0, 0, 0, 9}
	message := append(text([]byte{'M', 1, 0, 0, 0, 0, 0, 0, 0, 1}, "lockstep:annotations"), 0, 0, 0, 2, '{', '}')
	row := append(text([]byte{'M', 1, 0, 0, 0, 0, 0, 0, 0, 1}, "lockstep:row:secret"), 0, 0, 0, 3, '(', '1', ')')
	origin := text([]byte{'O', 0, 0, 0, 0, 0, 0, 0, 1}, "lockstep_sync")
	return [][]byte{begin, origin, relation, insert, update, remove, truncate, message, row, commit}
}

// frames writes messages as the fuzzer's input holds them: each with its length.
func frames(messages ...[]byte) []byte {
	var b []byte
	for _, m := range messages {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(m))), m...)
	}
	return b
}

// Damaged messages give errors, never a panic, and what was decoded before them
// is a batch that can be read.
func FuzzDecode(f *testing.F) {
	f.Add(frames(seeds()...))
	for _, m := range seeds() {
		f.Add(frames(seeds()[0], seeds()[2], m))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		log := newCountingLog(t)
		b := newBatch(log, newFlight(0, &counters{}, func(error) {}), lockstep.Mark{}, 1<<10)
		d := newDecoder(b, &source{}, lockstep.Mark{})
		d.secret = "secret"
		for len(input) >= 2 {
			n := min(int(binary.BigEndian.Uint16(input)), len(input)-2)
			if d.decode(context.Background(), input[2:2+n]) != nil {
				break
			}
			input = input[2+n:]
		}
		data, err := b.w.Seal(1, b.mark)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lockstep.ParseBatch(data); err != nil {
			t.Fatal(err)
		}
	})
}

// The frames of the wire are cut the same, however the bytes arrive.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{'d', 0, 0, 0, 5, 'x', 'c', 0, 0, 0, 4, 'd', 0, 0, 0, 40, 1, 2}, uint8(3))
	f.Add([]byte{'d', 0, 0, 0, 3}, uint8(1))
	f.Add([]byte{'d', 0, 0, 1, 4}, uint8(200))
	f.Fuzz(func(t *testing.T, input []byte, piece uint8) {
		if len(input) > 1<<16 {
			return
		}
		cut := func(src io.Reader) (out []byte) {
			r := newFrameReader(src, 64)
			for {
				kind, body, ok, err := r.next()
				if err != nil {
					return append(out, "error"...)
				}
				if ok {
					out = append(append(append(out, kind), body...), '|')
					continue
				}
				if r.need > 1<<20 {
					return out // a head that claims much; the memory is not the point here
				}
				if _, err := r.fill(); err != nil {
					return out
				}
			}
		}
		whole := cut(bytes.NewReader(input))
		if pieces := cut(&slowReader{input, int(piece)%7 + 1}); !bytes.Equal(whole, pieces) {
			t.Fatalf("%q in pieces, %q at once", pieces, whole)
		}
	})
}

// slowReader gives a few bytes at a time.
type slowReader struct {
	data []byte
	n    int
}

func (r *slowReader) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.n)], r.data)
	r.data = r.data[n:]
	return n, nil
}

// The driver must not get to see a byte of what follows its message.
func TestBoundedReaderStopsAtEachMessage(t *testing.T) {
	t.Parallel()
	stream := []byte{'R', 0, 0, 0, 8, 1, 2, 3, 4, 'W', 0, 0, 0, 4, 'd', 0, 0, 0, 5, 9}
	r := &boundedReader{src: bytes.NewReader(stream)}
	var got [][]byte
	for range 5 {
		p := make([]byte, 100)
		n, err := r.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p[:n])
	}
	equal(t, got, [][]byte{stream[:5], stream[5:9], stream[9:14], stream[14:19], stream[19:]})
	r = &boundedReader{src: bytes.NewReader(stream), free: true}
	p := make([]byte, 100)
	n, _ := r.Read(p)
	equal(t, n, len(stream))
}
