package main

import (
	"lockstep/internal/config"
	"lockstep/internal/filter"
	"lockstep/internal/pattern"
)

// configOptions connects the configuration with the packages that own what stands
// in it.
func configOptions(s streams) config.Options {
	return config.Options{
		Lookup:         s.lookup,
		CheckFilter:    func(text string) error { return compiles(filter.Filter, text) },
		CheckTransform: func(text string) error { return compiles(filter.Transform, text) },
		CheckPattern: func(text string) error {
			_, err := pattern.Parse([]string{text})
			return err
		},
	}
}

func compiles(kind filter.Kind, text string) error {
	_, err := filter.Compile(kind, text)
	return err
}
