package wal

import "lockstep"

// appendPKs appends the key's values as a JSON array of their Postgres text.
func (r *relation) appendPKs(buf []byte, row []column) []byte {
	buf = append(buf, '[')
	for n, i := range r.keys {
		if n > 0 {
			buf = append(buf, ',')
		}
		if row[i].kind != columnText {
			buf = append(buf, "null"...)
			continue
		}
		buf = lockstep.AppendJSONString(buf, row[i].text)
	}
	return append(buf, ']')
}

// keyHash hashes the row's identity. Rows of a table without a key are told apart
// by their whole content where they can only be inserted; where they can also be
// updated, the table's changes share one hash, since an update joins two rows'
// identities and so the order of both.
func (r *relation) keyHash(row []column) uint64 {
	h := r.hash
	if len(r.keys) > 0 {
		for _, i := range r.keys {
			h = row[i].hash(h)
		}
		return h
	}
	if r.identity == identityFull {
		return h
	}
	for i := range row {
		h = row[i].hash(h)
	}
	return h
}

func (c *column) hash(h uint64) uint64 {
	if c.kind != columnText {
		return lockstep.KeyHashNull(h)
	}
	return lockstep.KeyHashPart(h, c.text)
}
