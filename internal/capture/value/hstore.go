package value

// appendHstore appends "a"=>"1", "b"=>NULL as an object.
func appendHstore(dst, text []byte) ([]byte, Note, bool) {
	plain := shape{kind: kindText}
	var note, n Note
	dst = append(dst, '{')
	for at := 0; at < len(text); {
		if at > 0 {
			if text[at] != ',' {
				return dst, note, false
			}
			dst = append(dst, ',')
			at++
			if at < len(text) && text[at] == ' ' {
				at++
			}
		}
		if at == len(text) || text[at] != '"' {
			return dst, note, false
		}
		dst, at, n = plain.appendQuoted(dst, text, at)
		note |= n
		if at < 0 || at+2 >= len(text) || text[at] != '=' || text[at+1] != '>' {
			return dst, note, false
		}
		dst = append(dst, ':')
		at += 2
		if text[at] == '"' {
			if dst, at, n = plain.appendQuoted(dst, text, at); at < 0 {
				return dst, note, false
			}
			note |= n
			continue
		}
		if at+4 > len(text) || string(text[at:at+4]) != "NULL" {
			return dst, note, false
		}
		dst = append(dst, "null"...)
		at += 4
	}
	return append(dst, '}'), note, true
}
