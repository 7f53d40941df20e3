package mirror_test

import (
	"testing"

	"lockstep/source"
)

// forgetful is a source that must be told of records before it fetches them.
type forgetful struct {
	source.Source
	told []source.Record
}

func (f *forgetful) Learn(records []source.Record) { f.told = append(f.told, records...) }

func TestRemindTellsASourceWhatIsMirrored(t *testing.T) {
	t.Parallel()
	f := newFixture(t, customers())
	f.put("customer", 1, source.Record{ID: "a", Data: []byte(`{"id":"a","email":"a@x"}`)})
	learner := &forgetful{}
	if err := f.Remind(t.Context(), learner, "customer", []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	if len(learner.told) != 1 || learner.told[0].ID != "a" || learner.told[0].Collection != "customer" || string(learner.told[0].Data) != `{"id": "a", "email": "a@x"}` {
		t.Errorf("told %+v", learner.told)
	}
}
