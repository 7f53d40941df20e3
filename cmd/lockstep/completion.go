package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// completeCommand is what the completion scripts call: its arguments are a shell's
// name and the words of the line, the last one unfinished. It is no command of the
// parser, which would read the words as its own flags.
const completeCommand = "__complete"

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help tells how to switch completion on.
func (completionCmd) Help() string {
	return `bash:  source <(lockstep completion bash)
zsh:   source <(lockstep completion zsh)
fish:  lockstep completion fish | source`
}

// Run writes the script. It asks this binary for the candidates, so that it never
// knows other commands than the binary does.
func (x *completionCmd) Run(s streams) error {
	scripts := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}
	_, err := io.WriteString(s.out, scripts[x.Shell])
	return err
}

const bashScript = `# lockstep completion for bash
_lockstep() {
	local IFS=$'\n'
	COMPREPLY=($("${COMP_WORDS[0]}" __complete bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _lockstep lockstep
`

const zshScript = `#compdef lockstep
# lockstep completion for zsh
_lockstep() {
	local line
	local -a found
	for line in "${(@f)$("${words[1]}" __complete zsh "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
		[[ -n $line ]] && found+=("$line")
	done
	if (( ${#found} )); then
		_describe 'lockstep' found
	else
		_files
	fi
}
if [ "${funcstack[1]}" = "_lockstep" ]; then
	_lockstep "$@"
else
	compdef _lockstep lockstep
fi
`

const fishScript = `# lockstep completion for fish
function __lockstep_complete
	set -l words (commandline -opc)
	set -l command $words[1]
	set -e words[1]
	$command __complete fish $words (commandline -ct) 2>/dev/null
end
complete -c lockstep -a '(__lockstep_complete)'
`

// candidate is a word that may stand at the cursor.
type candidate struct{ word, help string }

// complete writes the candidates for the last word, one per line, in the form of the
// shell that asks.
func complete(out io.Writer, args []string) error {
	if len(args) < 2 {
		return usageError{fmt.Errorf("%s is for completion scripts: lockstep completion bash makes one", completeCommand)}
	}
	var c cli
	parser, err := newParser(&c, streams{out: io.Discard, err: io.Discard})
	if err != nil {
		return err
	}
	words := joinFlags(args[1:])
	for _, found := range candidates(parser.Model.Node, words) {
		line := found.word
		switch args[0] {
		case "zsh":
			line = strings.ReplaceAll(found.word, ":", `\:`) + ":" + found.help
		case "fish":
			line = found.word + "\t" + found.help
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}

// joinFlags turns --flag = value, which is how bash splits --flag=value, into
// --flag value.
func joinFlags(words []string) []string {
	var out []string
	for i, w := range words {
		if w == "=" && i > 0 && strings.HasPrefix(words[i-1], "--") {
			if i == len(words)-1 {
				out = append(out, "")
			}
			continue
		}
		out = append(out, w)
	}
	return out
}

// candidates walks the commands along the words before the last.
func candidates(root *kong.Node, words []string) []candidate {
	node, flags, positional := root, root.Flags, 0
	last := words[len(words)-1]
	var pending *kong.Flag // the flag whose value comes next
	for _, w := range words[:len(words)-1] {
		switch {
		case pending != nil:
			pending = nil
		case strings.HasPrefix(w, "-"):
			if f := findFlag(flags, w); f != nil && !f.IsBool() {
				pending = f
			}
		default:
			if child := childOf(node, w); child != nil {
				node, flags, positional = child, append(slices.Clip(flags), flagsOf(child)...), 0
			} else {
				positional++
			}
		}
	}
	name, part, joined := strings.Cut(last, "=")
	switch {
	case pending != nil:
		return matching(enumOf(pending.Value), last)
	case joined && strings.HasPrefix(last, "--"):
		f := findFlag(flags, name)
		if f == nil {
			return nil
		}
		found := matching(enumOf(f.Value), part)
		for i := range found {
			found[i].word = name + "=" + found[i].word
		}
		return found
	case strings.HasPrefix(last, "-"):
		return matching(flagWords(flags), last)
	}
	return matching(append(childWords(node), positionalWords(node, positional)...), last)
}

// flagsOf returns the flags that may follow a command, those of the command that it
// stands for when no other is named too.
func flagsOf(node *kong.Node) []*kong.Flag {
	if node.DefaultCmd == nil {
		return node.Flags
	}
	return append(slices.Clip(node.Flags), node.DefaultCmd.Flags...)
}

func findFlag(flags []*kong.Flag, word string) *kong.Flag {
	for _, f := range flags {
		if word == "--"+f.Name || f.Short != 0 && word == "-"+string(f.Short) {
			return f
		}
	}
	return nil
}

func childOf(node *kong.Node, name string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == name {
			return child
		}
	}
	return nil
}

func childWords(node *kong.Node) []candidate {
	var out []candidate
	for _, child := range node.Children {
		if !child.Hidden {
			out = append(out, candidate{child.Name, child.Help})
		}
	}
	return out
}

func flagWords(flags []*kong.Flag) []candidate {
	var out []candidate
	for _, f := range flags {
		if !f.Hidden {
			out = append(out, candidate{"--" + f.Name, f.Help})
		}
	}
	return out
}

func positionalWords(node *kong.Node, index int) []candidate {
	if index >= len(node.Positional) {
		return nil
	}
	return enumOf(node.Positional[index])
}

func enumOf(v *kong.Value) []candidate {
	if v.Enum == "" {
		return nil
	}
	var out []candidate
	for word := range strings.SplitSeq(v.Enum, ",") {
		out = append(out, candidate{strings.TrimSpace(word), ""})
	}
	return out
}

func matching(all []candidate, prefix string) []candidate {
	var out []candidate
	for _, c := range all {
		if strings.HasPrefix(c.word, prefix) {
			out = append(out, c)
		}
	}
	return out
}
