package realtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
)

// maxPosted bounds the messages of one request.
const maxPosted = 1000

// broadcasts takes several broadcasts.
func (s *Server) broadcasts(w http.ResponseWriter, r *http.Request) {
	body, ok := s.admit(w, r)
	if !ok {
		return
	}
	var p struct {
		Messages []struct {
			Topic   *string         `json:"topic"`
			Event   *string         `json:"event"`
			Payload json.RawMessage `json:"payload"`
			Private flexible        `json:"private"`
		} `json:"messages"`
	}
	if err := json.Unmarshal(body, &p); err != nil || len(p.Messages) == 0 || len(p.Messages) > maxPosted {
		refuse(w, http.StatusUnprocessableEntity, fmt.Sprintf(`the body is {"messages":[{"topic","event","payload","private"}]}, with 1 to %d messages`, maxPosted))
		return
	}
	for i, m := range p.Messages {
		if m.Topic == nil || m.Event == nil || m.Payload == nil || !named(*m.Topic) || !named(*m.Event) {
			refuse(w, http.StatusUnprocessableEntity, fmt.Sprintf("messages[%d]: topic, event (texts of up to %d bytes) and payload are required", i, maxTopic))
			return
		}
	}
	if !s.pace(w, len(p.Messages)) {
		return
	}
	database := s.config.Database(r.URL.Query())
	for _, m := range p.Messages {
		text := (&push{event: *m.Event, payload: m.Payload, isJSON: true}).appendJSON(nil)
		s.hub.publish(topicKey{database, *m.Topic, bool(m.Private)}, &envelope{text: text})
	}
	w.WriteHeader(http.StatusAccepted)
}

// maxTopic is maxName without what sockets write before it.
const maxTopic = maxName - len("realtime:")

func named(text string) bool { return text != "" && len(text) <= maxTopic }

// broadcast takes one broadcast: JSON, or bytes for clients of version 2.0.0.
func (s *Server) broadcast(w http.ResponseWriter, r *http.Request) {
	body, ok := s.admit(w, r)
	if !ok {
		return
	}
	key := topicKey{s.config.Database(r.URL.Query()), r.PathValue("topic"), r.URL.Query().Get("private") == "true"}
	p := &push{event: r.PathValue("event"), payload: body}
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind {
	case "application/octet-stream":
	case "application/json", "":
		if p.isJSON = json.Valid(body); !p.isJSON {
			refuse(w, http.StatusUnprocessableEntity, "the body is the payload, as JSON")
			return
		}
	default:
		refuse(w, http.StatusUnsupportedMediaType, "the payload is application/json or application/octet-stream")
		return
	}
	if !named(key.name) || !named(p.event) {
		refuse(w, http.StatusUnprocessableEntity, fmt.Sprintf("topic and event have 1 to %d bytes", maxTopic))
		return
	}
	if !s.pace(w, 1) {
		return
	}
	s.hub.publish(key, &envelope{push: p})
	w.WriteHeader(http.StatusAccepted)
}

// admit checks the token and reads the body. It reports false when it has answered.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	if _, err := s.authorize(r.Context(), tokenOf(r)); err != nil {
		status, text := denied(err)
		refuse(w, status, text)
		return nil, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.config.Limits.MessageBytes))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body has more than %d bytes", large.Limit))
		return nil, false
	case err != nil:
		refuse(w, http.StatusBadRequest, "the body cannot be read")
		return nil, false
	}
	return body, true
}

// pace lets so many broadcasts through. It reports false when it has answered.
func (s *Server) pace(w http.ResponseWriter, messages int) bool {
	if s.posts.take(time.Now(), float64(messages)) {
		return true
	}
	w.Header().Set("Retry-After", "1")
	refuse(w, http.StatusTooManyRequests, "Too many messages to broadcast, please reduce the batch size")
	return false
}
