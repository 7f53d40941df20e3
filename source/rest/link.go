package rest

import "strings"

// nextLink returns the address with rel=next of Link headers (RFC 8288); empty when
// there is none.
func nextLink(headers []string) string {
	for _, h := range headers {
		for h != "" {
			var target string
			var params map[string]string
			target, params, h = link(h)
			for rel := range strings.FieldsSeq(params["rel"]) {
				if strings.EqualFold(rel, "next") {
					return target
				}
			}
		}
	}
	return ""
}

// link reads one link and returns what follows its comma. Commas and semicolons may
// stand in the address and in quotes.
func link(h string) (target string, params map[string]string, rest string) {
	from := strings.IndexByte(h, '<')
	if from < 0 {
		return "", nil, ""
	}
	to := strings.IndexByte(h[from:], '>')
	if to < 0 {
		return "", nil, ""
	}
	target, h = strings.TrimSpace(h[from+1:from+to]), h[from+to+1:]
	params = map[string]string{}
	for {
		h = strings.TrimLeft(h, " \t")
		if h == "" || h[0] == ',' {
			return target, params, strings.TrimPrefix(h, ",")
		}
		if h[0] != ';' {
			h = h[1:] // not of the grammar; go on to where a parameter may begin
			continue
		}
		var name, v string
		name, v, h = linkParam(h[1:])
		if _, twice := params[name]; !twice {
			params[name] = v
		}
	}
}

func linkParam(h string) (name, v, rest string) {
	end := strings.IndexAny(h, "=;,")
	if end < 0 || h[end] != '=' {
		if end < 0 {
			end = len(h)
		}
		return strings.ToLower(strings.TrimSpace(h[:end])), "", h[end:]
	}
	name, h = strings.ToLower(strings.TrimSpace(h[:end])), strings.TrimLeft(h[end+1:], " \t")
	if !strings.HasPrefix(h, `"`) {
		end = strings.IndexAny(h, ";,")
		if end < 0 {
			end = len(h)
		}
		return name, strings.TrimSpace(h[:end]), h[end:]
	}
	var b strings.Builder
	for i := 1; i < len(h); i++ {
		switch h[i] {
		case '\\':
			if i++; i < len(h) {
				b.WriteByte(h[i])
			}
		case '"':
			return name, b.String(), h[i+1:]
		default:
			b.WriteByte(h[i])
		}
	}
	return name, b.String(), ""
}
