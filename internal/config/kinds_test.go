package config_test

import (
	"slices"
	"strings"
	"testing"

	"lockstep/internal/config"
)

const hooks = `
consumers:
  - name: hooks
    kind: webhook
    webhook:
      url: ${HOOK}
      secrets: [whsec_a, {key: "${KEY}", until: 2026-11-01T00:00:00Z}]
      gzip: true
      concurrency: 4
      timeout: 15s
      headers: {X-Team: "7"}
      secret: BAD
`

func TestSettingsOfAKindAreReadAsJSON(t *testing.T) {
	t.Parallel()
	var got, kind string
	options := config.Options{
		Kinds: []string{"webhook", "stdout"},
		Lookup: func(name string) (string, bool) {
			return map[string]string{"HOOK": "https://a.test/x", "KEY": "whsec_b"}[name], true
		},
		CheckKind: func(k, settings string) []config.KindFault {
			kind, got = k, settings
			return []config.KindFault{
				{Field: "secret", Message: "it is bad", Remedy: "mend it"}, {Field: "secrets[1]", Message: "it has ended", Remedy: "remove it"},
				{Field: "path", Message: "missing", Remedy: "add it"},
			}
		},
	}
	_, err := config.Parse("lockstep.yml", []byte(hooks), options)
	want := `{"concurrency":4,"gzip":true,"headers":{"X-Team":"7"},"secret":"BAD","secrets":["whsec_a",{"key":"whsec_b","until":"2026-11-01T00:00:00Z"}],"timeout":"15s","url":"https://a.test/x"}`
	if kind != "webhook" || got != want {
		t.Errorf("kind %s has the settings\n%s\nwant\n%s", kind, got, want)
	}
	if err == nil {
		t.Fatal("faults were not told")
	}
	lines := strings.Split(err.Error(), "\n")
	for _, line := range []string{
		"lockstep.yml:12:15: consumers[0].webhook.secret: it is bad, mend it",
		"lockstep.yml:7:16: consumers[0].webhook.secrets[1]: it has ended, remove it",
		"lockstep.yml:6:7: consumers[0].webhook.path: missing, add it",
	} {
		if !slices.Contains(lines, line) {
			t.Errorf("no line %q in\n%s", line, err)
		}
	}
	options.CheckKind = nil
	c, err := config.Parse("lockstep.yml", []byte(hooks), options)
	if err != nil || c.Consumers[0].Settings.Reveal() != want || strings.Contains(c.Consumers[0].Settings.String(), "BAD") {
		t.Errorf("settings %v, %v", c, err)
	}
}

func TestAKindThatNeedsSettingsMissesThem(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("lockstep.yml", []byte("consumers:\n  - {name: a, kind: webhook}\n  - {name: b, kind: webhook, webhook: 7}\n  - {name: c, kind: kafka}\n"), config.Options{
		Kinds: []string{"webhook"},
		CheckKind: func(string, string) []config.KindFault {
			return []config.KindFault{{Field: "url", Message: "missing", Remedy: "add it"}}
		},
	})
	want := "lockstep.yml:2:5: consumers[0].webhook.url: missing, add it\n" +
		"lockstep.yml:3:39: consumers[1].webhook: expected keys and values, got a number, write it as key: value\n" +
		"lockstep.yml:4:21: consumers[2].kind: consumers of kind kafka are not available in this version, use http or webhook"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}
