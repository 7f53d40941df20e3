package config

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"go.yaml.in/yaml/v4"

	"lockstep"
)

// Options is what reading a configuration needs from outside.
type Options struct {
	// Lookup finds a variable of the environment; nil: os.LookupEnv.
	Lookup func(name string) (value string, found bool)
	// The checks of what other packages own; nil: not checked. Their errors are
	// shown behind the place in the file.
	CheckFilter    func(expression string) error
	CheckTransform func(expression string) error
	CheckPattern   func(pattern string) error // of tables
	// CheckSync looks at a sync with the eyes of its provider. What it completes is
	// taken over.
	CheckSync func(s Sync) SyncCheck
	// Kinds are those of consumers that this version has; nil: http and stdout. CheckKind
	// looks at what stands under a kind's name, a JSON object or nothing.
	Kinds     []string
	CheckKind func(kind, settings string) []KindFault

	// Remote is set when the file is not this process's: its syncs and consumers are meant
	// for a node elsewhere.
	Remote *Remote
	// Unset says what stands in the place of a variable that is not set; nil: that is an
	// error of the file.
	Unset func(name string) string
}

// Remote is the node that the syncs and consumers of a file are meant for. Only these are
// read of the file, and the names of its databases; where it has none, those of the node.
type Remote struct {
	Databases []string // of the node; one at least
}

// KindFault is what is wrong with a kind's settings.
type KindFault struct {
	Field   string // such as url, or secrets[1]; empty: the settings as a whole
	Message string
	Remedy  string
}

// Load reads and checks the file at path. An empty path means [DefaultFile] of the
// working directory, and the default configuration when there is no such file.
// What is wrong with the content is returned as [Problems]; a file that is not
// there or not readable gives an error that wraps [lockstep.ErrInvalid].
func Load(path string, o Options) (*Config, error) {
	name := path
	if name == "" {
		name = DefaultFile
	}
	data, err := readFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if path == "" {
			return Parse("", nil, o)
		}
		return nil, fmt.Errorf("read configuration: there is no file %s, name another one with -c or leave -c out to run with the defaults: %w", name, lockstep.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w: %w", name, err, lockstep.ErrInvalid)
	}
	return Parse(name, data, o)
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	// One byte more than allowed, so that Parse sees that there is too much.
	return io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
}

// Parse checks the content of a configuration file. The name stands in errors. It
// returns a complete configuration or [Problems].
func Parse(name string, data []byte, o Options) (*Config, error) {
	r := newReader(name, o)
	if len(data) > MaxFileBytes {
		r.add(Problem{Message: fmt.Sprintf("the file is larger than %d bytes", MaxFileBytes), Remedy: "is it really a configuration of lockstep?"})
		return nil, r.problems
	}
	c := Default()
	c.File = name
	if root := r.parse(data); root != nil {
		r.config(value{node: root}, c)
	}
	r.environment(c)
	if len(r.problems) > 0 {
		return nil, r.problems.tidy(r.file)
	}
	return c, nil
}

// parse returns the root of the document, or nil when there is none.
func (r *reader) parse(data []byte) *yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		r.add(syntaxProblem(err))
		return nil
	}
	var root, second yaml.Node
	if err := loader.Load(&root); err != nil {
		if !errors.Is(err, io.EOF) {
			r.add(syntaxProblem(err))
		}
		return nil
	}
	if err := loader.Load(&second); err == nil {
		r.add(Problem{Line: second.Line, Column: second.Column, Message: "a second document begins here", Remedy: "keep one document per file"})
	} else if !errors.Is(err, io.EOF) {
		r.add(syntaxProblem(err))
	}
	node := &root
	if node.Kind == yaml.DocumentNode && len(node.Content) == 1 {
		node = node.Content[0]
	}
	if node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" {
		return nil
	}
	return node
}

func syntaxProblem(err error) Problem {
	p := Problem{Message: err.Error(), Remedy: "mend the YAML, then run again: nothing behind this place was checked"}
	if load, ok := errors.AsType[*yaml.LoadError](err); ok {
		p.Line, p.Column, p.Message = load.Mark.Line, load.Mark.Column, load.Message
		if load.ContextMsg != "" {
			p.Message = load.ContextMsg + ": " + p.Message
		}
	}
	p.Message = "not valid YAML: " + strings.ReplaceAll(p.Message, "\n", " ")
	return p
}

// environment takes what never stands in the file.
func (r *reader) environment(c *Config) {
	if r.options.Remote != nil {
		return
	}
	c.PGBin, _ = r.lookup("LOCKSTEP_PG_BIN")
	key, _ := r.lookup("LOCKSTEP_KEY")
	if key != "" {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(key))
		if err != nil || len(raw) != 32 {
			r.problems = append(r.problems, Problem{File: environment, Path: "LOCKSTEP_KEY", Message: "not 32 bytes in base64", Remedy: "make one with: openssl rand -base64 32"})
		}
		c.Key = Secret(raw)
	}
	r.checkListen(c)
}
