package stream

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats.go"
)

// A block of JetStream's file store is a run of records, each of
//
//	4  length of the record; the highest bit says that it has headers
//	8  sequence; the highest two bits mark erased and deleted messages
//	8  time
//	2  length of the subject
//	   subject; with headers 4 for their length, then they; body
//	8  HighwayHash of all of it but the lengths, keyed by stream and block
//
// The server cuts a block off at the first record that it cannot read, and does not
// say so. So what lies behind is read here, before the server sees it.
const (
	blockHead    = 22
	blockHash    = 8
	blockHeaders = 1 << 31
	blockErased  = 1 << 63
	blockDeleted = 1 << 62
)

// record is a message as it lies in a block.
type record struct {
	seq      uint64
	subject  string // empty for what holds the place of a message that was deleted
	header   nats.Header
	data     []byte
	size     int
	repaired bool // its lengths are damaged, but not what they are about
}

// contents is what a stream's blocks hold.
type contents struct {
	latest map[string]record // by subject
	last   uint64            // the highest sequence
	damage []string          // what cannot be read, file by file
}

// readStream reads the blocks of a stream in dir that is not open. Subjects of the
// stream begin with prefix: by them records are found behind damage.
func readStream(dir, name, prefix string) (contents, error) {
	c := contents{latest: map[string]record{}}
	if err := checkDescription(dir, name); err != nil {
		c.damage = append(c.damage, err.Error())
	}
	files, err := os.ReadDir(filepath.Join(dir, "msgs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	for _, f := range files {
		number, isBlock := strings.CutSuffix(f.Name(), ".blk")
		index, err := strconv.ParseUint(number, 10, 32)
		if !isBlock || err != nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, "msgs", f.Name()))
		if err != nil {
			c.damage = append(c.damage, err.Error()) // a bad sector reads like this
			continue
		}
		b := block{data: data, prefix: []byte(prefix)}
		key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", name, index))
		copy(b.key[:], key[:])
		b.read(&c, f.Name())
	}
	return c, nil
}

// checkDescription looks at the file that describes the stream: without it the server
// passes the stream over.
func checkDescription(dir, name string) error {
	meta, err := os.ReadFile(filepath.Join(dir, "meta.inf"))
	if err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(dir, "meta.sum"))
	if err != nil {
		return err
	}
	key := sha256.Sum256([]byte(name))
	hash := highwayhash.Sum64(meta, key[:])
	if want := hex.EncodeToString(binary.LittleEndian.AppendUint64(nil, hash)); want != string(sum) {
		return errors.New("meta.inf: checksum differs")
	}
	return nil
}

type block struct {
	data   []byte
	prefix []byte
	key    [sha256.Size]byte
}

// read takes every record of the block that can be read.
func (b *block) read(c *contents, file string) {
	for at := 0; at < len(b.data); {
		r, ok := b.record(at)
		if !ok {
			next := b.resume(at + 1)
			c.damage = append(c.damage, fmt.Sprintf("%s: bytes %d to %d", file, at, next-1))
			at = next
			continue
		}
		if r.repaired {
			c.damage = append(c.damage, fmt.Sprintf("%s: a length in bytes %d to %d", file, at, at+r.size-1))
		}
		at += r.size
		c.last = max(c.last, r.seq)
		if known, ok := c.latest[r.subject]; r.subject != "" && (!ok || known.seq < r.seq) {
			c.latest[r.subject] = r
		}
	}
}

// resume returns where the next record with a subject begins, or the block's end.
func (b *block) resume(at int) int {
	for {
		found := bytes.Index(b.data[min(at+blockHead, len(b.data)):], b.prefix)
		if found < 0 {
			return len(b.data)
		}
		at += found
		if _, ok := b.record(at); ok {
			return at
		}
		at++
	}
}

func (b *block) record(at int) (record, bool) {
	rest := b.data[at:]
	if len(rest) < blockHead+blockHash {
		return record{}, false
	}
	le := binary.LittleEndian
	length, subject := le.Uint32(rest), int(le.Uint16(rest[20:]))
	r := record{size: int(length &^ blockHeaders)}
	withHeaders := length&blockHeaders != 0
	lead := blockHead + subject
	if withHeaders {
		lead += 4
	}
	if r.size > len(rest) || lead+blockHash > r.size {
		return record{}, false
	}
	body := rest[lead : r.size-blockHash]
	hash, err := highwayhash.NewDigest64(b.key[:])
	if err != nil {
		return record{}, false
	}
	for _, part := range [][]byte{rest[4:20], rest[blockHead : blockHead+subject], body} {
		_, _ = hash.Write(part) // never fails
	}
	if !bytes.Equal(hash.Sum(nil), rest[r.size-blockHash:r.size]) {
		return record{}, false
	}
	marked := le.Uint64(rest[4:])
	if r.seq = marked &^ (blockErased | blockDeleted); r.seq != marked {
		return r, true
	}
	r.subject, r.data = string(rest[blockHead:blockHead+subject]), body
	if withHeaders {
		return r.split(int(le.Uint32(rest[lead-4:])))
	}
	return r, true
}

// split parts headers and body. The checksum leaves the length of the headers out, so
// their own end tells where that is.
func (r record) split(length int) (record, bool) {
	end := bytes.Index(r.data, []byte("\r\n\r\n"))
	if end < 0 {
		return record{}, false
	}
	end += len("\r\n\r\n")
	header, err := nats.DecodeHeadersMsg(slices.Clone(r.data[:end]))
	if err != nil {
		return record{}, false
	}
	r.header, r.data, r.repaired = header, r.data[end:], end != length
	return r, true
}
