package deliver

// Source is what the system columns of a mirror table's row tell of where the row comes
// from: JSON values as they stand in the row. What the row does not have is nil.
type Source struct {
	ID, UpstreamID, CreatedAt, UpdatedAt, FetchedAt, Fingerprint, Notes []byte
}

// Member is a member of a JSON object: a name that needs no escapes, and a JSON value.
type Member struct {
	Name  string
	Value []byte
}

// Members returns the parts with the names that the HTTP API has for them. The API's id
// is a text whatever its column is.
func (s Source) Members() []Member {
	return []Member{
		{"id", s.ID}, {"upstream_id", appendText(nil, s.UpstreamID)}, {"upstream_created_at", s.CreatedAt}, {"upstream_updated_at", s.UpdatedAt},
		{"fetched_at", s.FetchedAt}, {"fingerprint", s.Fingerprint}, {"notes", s.Notes},
	}
}

// SourceOf reads a row of a mirror table. Nothing of its values is decoded or copied.
func SourceOf(row []byte) (s Source) {
	for at := 0; ; {
		name, value, next := member(row, at)
		switch string(name) {
		case "":
			return s
		case `"id"`:
			s.UpstreamID = value
		case `"_id"`:
			s.ID = value
		case `"_created_at"`:
			s.CreatedAt = value
		case `"_updated_at"`:
			s.UpdatedAt = value
		case `"_synced_at"`:
			s.FetchedAt = value
		case `"_fingerprint"`:
			s.Fingerprint = value
		case `"_notes"`:
			s.Notes = value
		}
		at = next
	}
}
