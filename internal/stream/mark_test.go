package stream

import (
	"bytes"
	"testing"

	"lockstep"
)

// oldPlace puts the mark where versions before had it.
func oldPlace(t testing.TB, l *Log) {
	t.Helper()
	kv, err := l.srv.markCopies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kept, err := kv.Get(t.Context(), l.markKey())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openStates(t, l.srv).kv.Put(t.Context(), markKeyPrefix+l.markKey(), kept.Value()); err != nil {
		t.Fatal(err)
	}
	if err := l.srv.js.DeleteKeyValue(t.Context(), markBucket); err != nil {
		t.Fatal(err)
	}
	l.srv.marks = nil
}

func TestMarkOfAnOlderVersionIsTakenOver(t *testing.T) {
	t.Parallel()
	l := openLog(t, openServer(t, Config{}))
	append1(t, l, small(5), markAt(7))
	if err := l.saveMark(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := l.view().end
	oldPlace(t, l)
	got, err := l.savedMark(t.Context())
	if err != nil || got.mark != want.mark || got.last != want.last {
		t.Fatalf("got %+v, error %v; want %+v", got, err, want)
	}
	if err := l.saveMark(t.Context()); err != nil {
		t.Fatal(err)
	}
	found, err := openStates(t, l.srv).stored(t.Context(), markKeyPrefix+l.markKey())
	if err != nil || found.value != nil {
		t.Errorf("the old place still has %d bytes, error %v", len(found.value), err)
	}
	if got, err = l.savedMark(t.Context()); err != nil || got.mark != want.mark {
		t.Errorf("got %+v, error %v", got, err)
	}
}

func TestDamagedMarkStopsNeitherTheLogNorAcks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openServer(t, Config{Dir: dir})
	l := openLog(t, s)
	append1(t, l, small(5), markAt(7))
	save(t, openStates(t, s), "c", "acked", map[string]uint64{})
	closeServer(t, s)
	path, data := blockOf(t, dir, markBucket)
	data[bytes.LastIndex(data, []byte("\r\n\r\n"))+9] ^= 1
	rewrite(t, path, data)

	var log recorder
	s = openServer(t, Config{Dir: dir, Logger: log.logger()})
	l = openLog(t, s)
	if mark, err := l.Recover(timed(t)); err != nil || mark.Seq != 5 {
		t.Fatalf("recovered %+v, error %v", mark, err)
	}
	if !bytes.Contains([]byte(log.String()), []byte(markBucket)) {
		t.Errorf("the log says %s", log.String())
	}
	append1(t, l, small(5), markAt(lockstep.LSN(8)))
	if err := l.saveMark(t.Context()); err != nil {
		t.Error(err)
	}
	value, _, err := openStates(t, s).Load(t.Context(), "c")
	if _, _, lost := openStates(t, s).Lost("c"); err != nil || lost != nil || string(value) != "acked" {
		t.Errorf("got %q, errors %v, %v", value, err, lost)
	}
}
