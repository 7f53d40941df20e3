package examples_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lockstep/client"
	"lockstep/internal/pgdb/pgtest"
)

const webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// TestWebhookReceiver: with a consumer of kind webhook, killed under load.
func TestWebhookReceiver(t *testing.T) {
	t.Parallel()
	n := newNode(t, "", "")
	address := freeAddress(t)
	p := newProgram(t, []string{"WEBHOOK_SECRET=" + webhookSecret, "LISTEN=" + address}, build(t, "webhook-receiver"))
	p.start()
	settings := fmt.Sprintf(`{"url":"http://%s","secret":%q,"allow_private":true}`, address, webhookSecret)
	n.consumer(client.Definition{Kind: "webhook", Batch: &client.Batching{Size: 10}, Webhook: json.RawMessage(settings)})
	for round := range 3 {
		acked := n.stats().Acked
		n.load(round)
		pgtest.Eventually(t, time.Minute, "some acks", func() bool { return n.stats().Acked > acked+20 })
		p.kill()
		p.start()
	}
	last := n.last()
	pgtest.Eventually(t, time.Minute, "everything to be delivered", func() bool { return n.stats().FloorSeq >= last })
	p.terminate()

	// A change may be printed twice, by the program before a kill and the one after it.
	line := regexp.MustCompile(`(?m)^(\d+) (insert|update|delete) public\.orders \["(\d+)"\] (\{.*\})$`)
	seen, rows := map[string]uint64{}, map[string]string{}
	for _, m := range line.FindAllStringSubmatch(p.text(), -1) {
		seq, err := strconv.ParseUint(m[1], 10, 64)
		if err != nil || seq < seen[m[3]] {
			t.Errorf("row %s: %d after %d, %v", m[3], seq, seen[m[3]], err)
		}
		var row struct{ Amount int }
		if err := json.Unmarshal([]byte(m[4]), &row); err != nil {
			t.Error(err)
		}
		seen[m[3]], rows[m[3]] = seq, m[3]+" "+strconv.Itoa(row.Amount)
		if m[2] == "delete" {
			delete(rows, m[3])
		}
	}
	var got []string
	for _, row := range rows {
		got = append(got, row)
	}
	slices.Sort(got)
	if want := n.table(); !slices.Equal(got, want) {
		t.Errorf("it printed %v, the table has %v", strings.Join(got, ", "), strings.Join(want, ", "))
	}
}
