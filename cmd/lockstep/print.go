package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// printer writes results the way that the flags ask for.
type printer struct {
	out, err io.Writer
	format   string // table, json or yaml
	quiet    bool
}

// table is a result as people read it.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// result writes value as JSON or YAML, or the table.
func (p printer) result(value any, t table) error {
	if p.format == "table" {
		return p.table(t)
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return p.raw(raw)
}

// raw writes one JSON value as JSON or YAML. Numbers keep their digits.
func (p printer) raw(value json.RawMessage) error {
	if p.format == "yaml" {
		text, err := toYAML(value)
		if err != nil {
			return err
		}
		_, err = p.out.Write(text)
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, value, "", "  "); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	b.WriteByte('\n')
	_, err := p.out.Write(b.Bytes())
	return err
}

// table writes aligned columns; quiet leaves the first one, without a heading.
func (p printer) table(t table) error {
	var b strings.Builder
	if p.quiet {
		for _, row := range t.rows {
			b.WriteString(printable(row[0]) + "\n")
		}
		_, err := io.WriteString(p.out, b.String())
		return err
	}
	widths := make([]int, len(t.head))
	lines := append([][]string{t.head}, t.rows...)
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], width(printable(cell)))
		}
	}
	for _, line := range lines {
		var row strings.Builder
		for i, cell := range line {
			cell = printable(cell)
			row.WriteString(cell + strings.Repeat(" ", widths[i]-width(cell)+2))
		}
		b.WriteString(strings.TrimRight(row.String(), " ") + "\n")
	}
	_, err := io.WriteString(p.out, b.String())
	return err
}

// note tells what was done, unless it is to be quiet.
func (p printer) note(format string, args ...any) {
	if !p.quiet {
		_, _ = fmt.Fprintf(p.err, format+"\n", args...)
	}
}
