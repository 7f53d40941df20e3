package value

import (
	"strings"
	"testing"
)

// samples is one typical text of each rule.
func samples() map[string]struct {
	oid  uint32
	text string
} {
	return map[string]struct {
		oid  uint32
		text string
	}{
		"int8":        {int8OID, "9223372036854775807"},
		"numeric":     {numericOID, "12345.6789"},
		"float8":      {float8OID, "3.141592653589793"},
		"text20":      {textOID, "twenty characters ok"},
		"text1k":      {textOID, strings.Repeat("some longer text ", 60)},
		"text1k-utf8": {textOID, strings.Repeat("Länger ist der Text ", 50) + "\n"},
		"timestamptz": {timestamptzOID, "2026-11-21 10:00:00.123456+00"},
		"bytea1k":     {byteaOID, `\x` + strings.Repeat("00ff", 512)},
		"jsonb1k":     {jsonbOID, `{"a": [` + strings.Repeat(`{"key": "some value", "n": 12.5}, `, 30) + `null]}`},
		"int4[]":      {1007, "{" + strings.Repeat("12345,", 19) + "NULL}"},
		"text[]":      {1009, `{"a b","with \"quotes\"",plain,NULL}`},
		"jsonb[]":     {3807, `{"{\"a\": 1.10, \"b\": \"x\\\\y\"}",null}`},
	}
}

func BenchmarkAppend(b *testing.B) {
	for name, s := range samples() {
		b.Run(name, func(b *testing.B) {
			e, text := builtinEncoder(b, s.oid, Options{}), []byte(s.text)
			dst := make([]byte, 0, 1<<16)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				dst, _ = e.Append(dst[:0], text)
			}
		})
	}
}

func BenchmarkAppendFields(b *testing.B) {
	text := []byte(`(1,"a b","quoted ""text""",,2026-11-21)`)
	row, fields := make([]byte, len(text)), make([]Field, 0, 8)
	b.ReportAllocs()
	for b.Loop() {
		copy(row, text)
		var err error
		if fields, err = AppendFields(fields[:0], row); err != nil {
			b.Fatal(err)
		}
	}
}

func TestEncodingAllocatesNothing(t *testing.T) { //nolint:paralleltest // counts allocations of the process
	dst := make([]byte, 0, 1<<16)
	for name, s := range samples() {
		e, text := builtinEncoder(t, s.oid, Options{}), []byte(s.text)
		if n := testing.AllocsPerRun(100, func() { dst, _ = e.Append(dst[:0], text) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
