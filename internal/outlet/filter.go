package outlet

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// The server checks what a client publishes to and subscribes to. It does not check
// where the answer to a request goes, nor where a push consumer delivers to: a client
// that may only read could have the server itself write into a stream. So what clients
// send passes through here: every line is taken apart and written anew, so that the
// server reads what was checked, and answers go to inboxes only.

// inbox is where answers may go.
const inbox = "_INBOX."

const (
	maxLine = 4096 // of the server
	// maxRequest bounds a request that makes a consumer.
	maxRequest = 64 << 10
)

var (
	errLine   = errors.New("not a line of the protocol")
	errReply  = errors.New("an answer may go to an inbox (_INBOX.) only")
	errPush   = errors.New("a consumer may deliver to an inbox (_INBOX.) only")
	errLength = errors.New("larger than is taken")
)

// pass copies what a client sends, until it breaks a rule or one side ends.
func pass(to io.Writer, from io.Reader) error {
	r, w := bufio.NewReaderSize(from, maxLine), bufio.NewWriterSize(to, 32<<10)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if err := passLine(w, r, bytes.TrimRight(line, "\r\n")); err != nil {
			return err
		}
		if r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
}

func passLine(w *bufio.Writer, r *bufio.Reader, line []byte) error {
	words := bytes.FieldsFunc(line, func(c rune) bool { return c == ' ' || c == '\t' })
	if len(words) == 0 {
		return errLine
	}
	switch verb := string(bytes.ToUpper(words[0])); verb {
	case "PUB", "HPUB":
		return passMessage(w, r, verb, words[1:])
	case "CONNECT":
		_, settings, _ := bytes.Cut(bytes.TrimLeft(line, " \t"), words[0])
		_, err := fmt.Fprintf(w, "CONNECT %s\r\n", bytes.TrimLeft(settings, " \t"))
		return err
	case "SUB", "UNSUB", "PING", "PONG":
		words[0] = []byte(verb)
		_, err := w.Write(append(bytes.Join(words, []byte(" ")), "\r\n"...))
		return err
	}
	return errLine
}

// passMessage copies a message: subject, the answer's subject if there is one, and one
// size, or two with headers.
func passMessage(w *bufio.Writer, r *bufio.Reader, verb string, words [][]byte) error {
	sizes := len(verb) - len("PUB") + 1
	if len(words) != sizes+1 && len(words) != sizes+2 {
		return errLine
	}
	if len(words) == sizes+2 && !bytes.HasPrefix(words[1], []byte(inbox)) {
		return errReply
	}
	size, err := strconv.ParseUint(string(words[len(words)-1]), 10, 31)
	if err != nil {
		return errLine
	}
	head := uint64(0)
	if verb == "HPUB" {
		if head, err = strconv.ParseUint(string(words[len(words)-2]), 10, 31); err != nil || head > size {
			return errLine
		}
	}
	if size > maxPayload {
		return errLength
	}
	makes := bytes.HasPrefix(words[0], []byte("$JS.API.CONSUMER.CREATE.")) || bytes.HasPrefix(words[0], []byte("$JS.API.CONSUMER.DURABLE.CREATE."))
	if _, err := fmt.Fprintf(w, "%s %s\r\n", verb, bytes.Join(words, []byte(" "))); err != nil {
		return err
	}
	if makes {
		return passRequest(w, r, int(head), int(size))
	}
	if _, err := io.CopyN(w, r, int64(size)); err != nil {
		return err
	}
	return passEnd(w, r)
}

// passRequest copies a request that makes a consumer.
func passRequest(w *bufio.Writer, r *bufio.Reader, head, size int) error {
	if size > maxRequest {
		return errLength
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	var asked struct {
		Config struct {
			DeliverSubject string `json:"deliver_subject"`
		} `json:"config"`
	}
	// What cannot be read here the server, which reads it in the same way, refuses.
	if json.Unmarshal(body[head:], &asked) == nil && asked.Config.DeliverSubject != "" && !bytes.HasPrefix([]byte(asked.Config.DeliverSubject), []byte(inbox)) {
		return errPush
	}
	if _, err := w.Write(body); err != nil {
		return err
	}
	return passEnd(w, r)
}

func passEnd(w *bufio.Writer, r *bufio.Reader) error {
	var end [2]byte
	if _, err := io.ReadFull(r, end[:]); err != nil {
		return err
	}
	if string(end[:]) != "\r\n" {
		return errLine
	}
	_, err := w.Write(end[:])
	return err
}
