package realtime

// Queued is how many bytes wait for sockets.
func (s *Server) Queued() int64 { return s.queued.Load() }

// Decode decodes a message as the reader of a socket does, and encodes what came out.
func Decode(data []byte, version2, binary bool) ([]byte, error) {
	w := wire1
	if version2 {
		w = wire2
	}
	decode := w.decodeText
	if binary {
		decode = w.decodeBinary
	}
	f, err := decode(data)
	if err != nil {
		return nil, err
	}
	if f.push != nil {
		out, _, _ := w.appendBroadcast(nil, f.topic, f.push)
		return out, nil
	}
	payload := f.payload
	if len(payload) == 0 {
		payload = []byte("null")
	}
	return w.appendFrame(nil, f.joinRef, f.ref, f.topic, f.event, payload), nil
}

// Join parses the payload of a join and makes the response.
func Join(payload []byte) (string, error) {
	j, err := parseJoin(payload)
	if err != nil {
		return "", err
	}
	for _, w := range j.changes {
		_, _ = w.bind()
	}
	return j.response(j.ids()), nil
}

// AttachedAfterLeaving has a channel attach to its feed that was left while it replayed,
// and returns how many channels the feed has then.
func AttachedAfterLeaving(s *Server) (int, error) {
	f, err := s.feed("")
	if err != nil {
		return 0, err
	}
	c := &channel{gone: true, feed: f}
	c.sub = &subscription{channel: c}
	c.attach(f.log.Last().Seq + 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs), nil
}
