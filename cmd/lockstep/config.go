package main

import (
	"lockstep/internal/capture/publish"
	"lockstep/internal/config"
	"lockstep/internal/filter"
)

// configOptions connects the configuration with the packages that own what stands
// in it.
func configOptions(s streams) config.Options {
	return config.Options{
		Lookup:         s.lookup,
		CheckFilter:    func(text string) error { return compiles(filter.Filter, text) },
		CheckTransform: func(text string) error { return compiles(filter.Transform, text) },
		CheckPattern: func(pattern string) error {
			_, err := publish.ParsePatterns([]string{pattern})
			return err
		},
	}
}

func compiles(kind filter.Kind, text string) error {
	_, err := filter.Compile(kind, text)
	return err
}
