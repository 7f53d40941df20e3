package realtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"lockstep"
)

// wire is a version of the protocol's framing.
type wire uint8

const (
	wire1 wire = 1 // 1.0.0: JSON objects
	wire2 wire = 2 // 2.0.0: JSON arrays, binary broadcasts
)

func parseWire(vsn string) (wire, error) {
	switch vsn {
	case "", "1.0.0":
		return wire1, nil
	case "2.0.0":
		return wire2, nil
	}
	return 0, fmt.Errorf("version %q of the protocol is not known: use 1.0.0 or 2.0.0", vsn)
}

// frame is one message of a client. The refs are JSON, to be echoed as they are.
type frame struct {
	joinRef, ref json.RawMessage
	topic, event string
	payload      json.RawMessage
	push         *push // of a binary broadcast, which has no payload
}

// push is a broadcast as its sender gave it.
type push struct {
	event    string
	metadata []byte // JSON, or nothing
	payload  []byte
	isJSON   bool // else the payload is bytes
}

var errFrame = errors.New("not a message of the protocol")

// maxName bounds topics and events: binary frames have one byte for their length.
const maxName = 255

// decodeText reads a text message.
func (w wire) decodeText(data []byte) (frame, error) {
	var f frame
	var topic, event json.RawMessage
	if w == wire2 {
		var parts []json.RawMessage
		if json.Unmarshal(data, &parts) != nil || len(parts) < 5 {
			return frame{}, fmt.Errorf("%w 2.0.0: [join_ref, ref, topic, event, payload] is expected", errFrame)
		}
		f.joinRef, f.ref, topic, event, f.payload = parts[0], parts[1], parts[2], parts[3], parts[4]
	} else {
		var object map[string]json.RawMessage
		if json.Unmarshal(data, &object) != nil || object == nil {
			return frame{}, fmt.Errorf(`%w 1.0.0: {"topic","event","payload","ref","join_ref"} is expected`, errFrame)
		}
		f.joinRef, f.ref, topic, event, f.payload = object["join_ref"], object["ref"], object["topic"], object["event"], object["payload"]
	}
	if json.Unmarshal(topic, &f.topic) != nil || json.Unmarshal(event, &f.event) != nil {
		return frame{}, fmt.Errorf("%w: topic and event are texts", errFrame)
	}
	if len(f.topic) > maxName || len(f.event) > maxName {
		return frame{}, fmt.Errorf("%w: topic and event have at most %d bytes", errFrame, maxName)
	}
	if !isRef(f.joinRef) || !isRef(f.ref) {
		return frame{}, fmt.Errorf("%w: refs are short texts", errFrame)
	}
	return f, nil
}

// isRef reports whether JSON can be echoed as a reference.
func isRef(ref json.RawMessage) bool {
	return len(ref) <= maxName && (len(ref) == 0 || ref[0] != '{' && ref[0] != '[')
}

// The kinds of binary frames.
const (
	kindPush          = 3 // a client's broadcast
	kindUserBroadcast = 4 // the same on its way to clients
)

// decodeBinary reads a binary message: a broadcast of version 2.0.0.
func (w wire) decodeBinary(data []byte) (frame, error) {
	if w != wire2 {
		return frame{}, fmt.Errorf("%w 1.0.0: it has no binary messages", errFrame)
	}
	const header = 7
	if len(data) < header || data[0] != kindPush {
		return frame{}, fmt.Errorf("%w: of binary messages, broadcasts (kind 3) are known", errFrame)
	}
	rest := data[header:]
	var parts [5][]byte
	for i := range parts {
		size := int(data[1+i])
		if size > len(rest) {
			return frame{}, fmt.Errorf("%w: the binary message is cut off", errFrame)
		}
		parts[i], rest = rest[:size], rest[size:]
	}
	p := &push{event: string(parts[3]), payload: rest, isJSON: data[6] == 1}
	switch {
	case data[6] > 1:
		return frame{}, fmt.Errorf("%w: encoding %d of a binary message is not known", errFrame, data[6])
	case p.isJSON && !json.Valid(rest), len(parts[4]) > 0 && !json.Valid(parts[4]):
		return frame{}, fmt.Errorf("%w: the binary message says that it holds JSON, and does not", errFrame)
	}
	if len(parts[4]) > 0 {
		p.metadata = parts[4]
	}
	return frame{joinRef: refOf(parts[0]), ref: refOf(parts[1]), topic: string(parts[2]), event: "broadcast", push: p}, nil
}

func refOf(text []byte) json.RawMessage {
	if len(text) == 0 {
		return nil
	}
	return lockstep.AppendJSONString(nil, text)
}

// appendFrame appends a message for a client. The refs and the payload are JSON; a ref
// of nil is null.
func (w wire) appendFrame(dst []byte, joinRef, ref []byte, topic, event string, payload []byte) []byte {
	dst, tail := w.appendHead(dst, joinRef, ref, topic, event)
	return append(append(dst, payload...), tail...)
}

// appendHead appends a message up to its payload, and returns what stands behind it.
func (w wire) appendHead(dst []byte, joinRef, ref []byte, topic, event string) (head []byte, tail []byte) {
	if w == wire2 {
		dst = appendRef(append(dst, '['), joinRef)
		dst = appendRef(append(dst, ','), ref)
		dst = lockstep.AppendJSONString(append(dst, ','), topic)
		dst = lockstep.AppendJSONString(append(dst, ','), event)
		return append(dst, ','), []byte{']'}
	}
	dst = lockstep.AppendJSONString(append(dst, `{"topic":`...), topic)
	dst = lockstep.AppendJSONString(append(dst, `,"event":`...), event)
	tail = appendRef([]byte(`,"ref":`), ref)
	tail = appendRef(append(tail, `,"join_ref":`...), joinRef)
	return append(dst, `,"payload":`...), append(tail, '}')
}

func appendRef(dst, ref []byte) []byte {
	if len(ref) == 0 {
		return append(dst, "null"...)
	}
	return append(dst, ref...)
}

// appendBroadcast appends a broadcast for clients, and tells whether the message is
// binary. It reports false when the version cannot say it: bytes in 1.0.0.
func (w wire) appendBroadcast(dst []byte, topic string, p *push) (out []byte, binary, ok bool) {
	if w == wire2 {
		encoding := byte(0)
		if p.isJSON {
			encoding = 1
		}
		dst = append(dst, kindUserBroadcast, byte(len(topic)), byte(len(p.event)), byte(len(p.metadata)), encoding)
		dst = append(append(append(dst, topic...), p.event...), p.metadata...)
		return append(dst, p.payload...), true, true
	}
	if !p.isJSON {
		return dst, false, false
	}
	return w.appendFrame(dst, nil, nil, topic, "broadcast", p.appendJSON(nil)), false, true
}

// appendJSON appends the broadcast as the payload of a text message.
func (p *push) appendJSON(dst []byte) []byte {
	dst = append(dst, `{"type":"broadcast","event":`...)
	dst = lockstep.AppendJSONString(dst, p.event)
	dst = append(append(dst, `,"payload":`...), p.payload...)
	if p.metadata != nil {
		dst = append(append(dst, `,"meta":`...), p.metadata...)
	}
	return append(dst, '}')
}

// sameRef reports whether two refs are the same; a missing one is null.
func sameRef(a, b json.RawMessage) bool {
	return bytes.Equal(appendRef(nil, a), appendRef(nil, b))
}
