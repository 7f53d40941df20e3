package console

import (
	"slices"
	"strings"
)

// kindOption is a kind of consumers as people choose it.
type kindOption struct {
	Kind  string
	Title string
	Words string
}

// kindOptions are the kinds of consumers, the most used first.
func kindOptions() []kindOption {
	return []kindOption{
		{"http", "Pull", "Your workers ask for changes and ack them, over HTTP"},
		{"webhook", "Webhook", "Changes are posted to an address of yours, signed"},
		{"postgres", "Postgres", "Rows are written into tables of another database"},
		{"nats", "NATS", "Published to JetStream"},
		{"kafka", "Kafka", "Produced to topics"},
		{"redis", "Redis", "Streams, or keys that hold the newest record"},
		{"stdout", "Output", "Lines of JSON on the node's standard output"},
	}
}

// sends reports whether changes are sent to consumers of a kind.
func sends(kind string) bool { return kind != "http" && kind != "" }

func choices(values ...string) []option {
	list := make([]option, 0, len(values))
	for _, v := range values {
		list = append(list, option{v, v})
	}
	return list
}

// selectionFields say which changes a consumer gets.
func selectionFields() []field {
	return []field{
		{Name: "tables", Label: "Tables", As: asLines, Holder: "public.orders\npublic.*\n-public.audit", Hint: "One on each line. * stands for any name, a minus leaves out. Empty: every table."},
		{Name: "collections", Label: "Or collections of syncs", As: asLines, Holder: "stripe:customer\nstripe:*", Hint: "In the place of tables: the record is then the API's own object."},
		{Name: "actions", Label: "Actions", As: asSeveral, Options: choices("insert", "update", "delete"), Hint: "None chosen: all of them."},
		{Name: "sync", Label: "Of the sync", As: asText, Holder: "acme-stripe", Hint: "With collections: only those of this sync. Empty: of every sync."},
		{Name: "filter", Label: "Filter", As: asArea, Broad: true, Holder: `record.amount > 100 && action != "delete"`, Hint: "An expression. Changes for which it is false are left out. It sees record, changes, action and metadata."},
		{Name: "transform", Label: "Transform", As: asArea, Broad: true, Holder: "{id: record.id, total: record.amount}", Hint: "An expression. Its result takes the place of record."},
	}
}

// deliveryFields say how changes are handed out. Few people change them.
func deliveryFields(kind string) []field {
	list := []field{
		{Name: "order_by", Label: "Order", As: asOrder, Holder: "key", Hint: "key: changes of one row wait for each other. none: nothing waits. Or columns: customer_id"},
		{Name: "ack_wait", Label: "Time to ack", As: asText, Holder: "30s", Hint: "A change that is not acked by then is handed out again."},
		{Name: "max_attempts", Label: "Attempts", As: asNumber, Holder: "0", Hint: "0: for ever, ever later."},
		{Name: "on_exhausted", Label: "After the last attempt", As: asChoice, Options: []option{
			{"", "As it is by default: park"}, {"park", "park: a dead letter, its row goes on"},
			{"park_key", "park_key: it and all later ones of its row"}, {"block", "block: its row waits for a person"},
		}},
		{Name: "max_in_flight", Label: "In flight at most", As: asNumber, Holder: "1000", Hint: "Changes handed out and not settled."},
		{Name: "backoff.first", Label: "First wait after a failure", As: asText, Holder: "1s", Hint: "Doubles with each further one."},
		{Name: "backoff.max", Label: "Longest wait", As: asText, Holder: "10m"},
	}
	if sends(kind) {
		list = append(list,
			field{Name: "batch.size", Label: "Changes together", As: asNumber, Holder: "1", Hint: "At most so many in one request. 1 to 1000."},
			field{Name: "batch.wait", Label: "Wait for more", As: asText, Holder: "0s", Hint: "So long a change waits for others to go with it."})
	}
	return append(list, field{Name: "metadata", Label: "Metadata", As: asJSON, Broad: true, Holder: `{"team": "billing"}`, Hint: "Yours: kept and returned, as JSON."})
}

// kindFields are what a kind needs to be told, and what is rarely said.
func kindFields(kind string) (needed, rare []field) {
	switch kind {
	case "webhook":
		return webhookFields()
	case "postgres":
		return postgresFields()
	case "nats":
		return natsFields()
	case "kafka":
		return kafkaFields()
	case "redis":
		return redisFields()
	}
	return nil, nil
}

func webhookFields() (needed, rare []field) {
	needed = []field{
		{Name: "webhook.url", Label: "URL", As: asText, Broad: true, Holder: "https://shop.example.com/hooks/orders", Hint: "Changes are posted there."},
		{Name: "webhook.secret", Label: "Signing secret", As: asSecret, Holder: "whsec_…", Hint: "whsec_ and 24 to 64 bytes in base64. Requests are signed with it; it is never shown again. Make one: echo whsec_$(openssl rand -base64 32)"},
		{Name: "webhook.format", Label: "Format", As: asChoice, Options: append([]option{{"", "As it is by default: lockstep"}}, choices("lockstep", "cloudevents", "cloudevents-structured", "cloudevents-batch", "plain")...), Hint: "plain: the record alone, for APIs that know nothing of Lockstep."},
	}
	rare = []field{
		{Name: "webhook.headers", Label: "Headers", As: asPairs, Holder: "Authorization: Bearer …", Hint: "One on each line. Their values are never shown again."},
		{Name: "webhook.timeout", Label: "Timeout", As: asText, Holder: "15s"},
		{Name: "webhook.concurrency", Label: "Requests at a time", As: asNumber, Holder: "16", Hint: "At most 256."},
		{Name: "webhook.allow_private", Label: "May be a private address", As: asCheck, Hint: "Else only public addresses are called."},
		{Name: "webhook.gzip", Label: "Compress requests", As: asCheck},
		{Name: "webhook.method", Label: "Method", As: asText, Holder: "POST", Hint: "A word, or an expression."},
		{Name: "webhook.path", Label: "Path", As: asText, Holder: `"/orders/" + string(record.id)`, Hint: "An expression, appended to the URL."},
		{Name: "webhook.add_headers", Label: "Further headers", As: asText, Holder: `{"X-Action": action}`, Hint: "An expression."},
		{Name: "webhook.event_type", Label: "CloudEvents type", As: asText, Holder: `"orders." + action`, Hint: "An expression."},
		{Name: "webhook.source", Label: "CloudEvents source", As: asText},
	}
	return needed, rare
}

func postgresFields() (needed, rare []field) {
	needed = []field{
		{Name: "postgres.url", Label: "Connection", As: asText, Broad: true, Holder: "postgres://user:password@host:5432/warehouse", Hint: "The password in it is never shown again."},
		{Name: "postgres.table", Label: "Table", As: asText, Holder: "{schema}.{table}", Hint: "{schema}, {table} and {database} are those of the change."},
		{Name: "postgres.create", Label: "Make missing tables and columns", As: asCheck},
	}
	rare = []field{
		{Name: "postgres.form", Label: "Form", As: asChoice, Options: append([]option{{"", "As it is by default: mapped"}}, choices("mapped", "generic")...), Hint: "mapped: members are columns. generic: one table of JSON."},
		{Name: "postgres.key", Label: "Key columns", As: asLines, Holder: "id", Hint: "Of the target. Empty: its primary key."},
		{Name: "postgres.rename", Label: "Rename", As: asPairs, Holder: "amount: total", Hint: "A line for each member and its column."},
		{Name: "postgres.unknown", Label: "Members without a column", As: asChoice, Options: append([]option{{"", "As it is by default: refuse"}}, choices("refuse", "ignore")...)},
		{Name: "postgres.guard", Label: "Where the seq of a row is", As: asChoice, Options: append([]option{{"", "What suits the table"}}, choices("column", "table")...)},
		{Name: "postgres.soft_delete", Label: "Column that a delete sets", As: asText, Holder: "deleted_at"},
		{Name: "postgres.keep_deleted", Label: "Remember deleted rows for", As: asText, Holder: "192h"},
		{Name: "postgres.truncate", Label: "A truncate empties the target", As: asCheck},
		{Name: "postgres.connections", Label: "Connections", As: asNumber, Holder: "4"},
	}
	return needed, rare
}

func natsFields() (needed, rare []field) {
	needed = []field{
		{Name: "nats.url", Label: "Server", As: asText, Broad: true, Holder: "nats://host:4222"},
		{Name: "nats.stream", Label: "Stream", As: asText, Holder: "lockstep-{name}"},
		{Name: "nats.subject", Label: "Subject", As: asText, Holder: "lockstep.{name}.{schema}.{table}.{action}"},
	}
	rare = []field{
		{Name: "nats.user", Label: "User", As: asText},
		{Name: "nats.password", Label: "Password", As: asSecret},
		{Name: "nats.token", Label: "Token", As: asSecret},
		{Name: "nats.credentials", Label: "Credentials file", As: asText, Holder: "/etc/lockstep/nats.creds", Hint: "A path on the node."},
		{Name: "nats.name", Label: "{name}", As: asText, Hint: "Empty: the database's name, or the sync's."},
		{Name: "nats.create", Label: "Streams", As: asChoice, Options: []option{{"", "Make missing ones"}, {"never", "never: use what is there"}}},
		{Name: "nats.replicas", Label: "Replicas of new streams", As: asNumber, Holder: "1"},
		{Name: "nats.age", Label: "New streams keep for", As: asText, Holder: "168h"},
		{Name: "nats.window", Label: "Unacknowledged at most", As: asNumber, Holder: "256"},
	}
	return needed, rare
}

func kafkaFields() (needed, rare []field) {
	needed = []field{
		{Name: "kafka.brokers", Label: "Brokers", As: asLines, Holder: "host:9092", Hint: "Some of the cluster's."},
		{Name: "kafka.topic", Label: "Topic", As: asText, Holder: "{database}.{schema}.{table}"},
		{Name: "kafka.tls", Label: "TLS", As: asCheck},
		{Name: "kafka.mechanism", Label: "SASL", As: asChoice, Options: append([]option{{"", "none"}}, choices("plain", "scram-sha-256", "scram-sha-512")...)},
		{Name: "kafka.user", Label: "User", As: asText},
		{Name: "kafka.password", Label: "Password", As: asSecret},
	}
	rare = []field{
		{Name: "kafka.key", Label: "Key", As: asChoice, Options: append([]option{{"", "As it is by default: primary"}}, choices("primary", "order")...)},
		{Name: "kafka.tombstones", Label: "A deleted row has the value null", As: asCheck, Hint: "For compacted topics."},
		{Name: "kafka.compression", Label: "Compression", As: asChoice, Options: append([]option{{"", "As it is by default: gzip"}}, choices("gzip", "none", "snappy", "lz4", "zstd")...)},
		{Name: "kafka.create", Label: "Topics", As: asChoice, Options: []option{{"", "Make missing ones"}, {"never", "never: use what is there"}}},
		{Name: "kafka.partitions", Label: "Partitions of new topics", As: asNumber},
		{Name: "kafka.replication", Label: "Replication of new topics", As: asNumber},
		{Name: "kafka.linger", Label: "Wait for others", As: asText, Holder: "0s"},
	}
	return needed, rare
}

func redisFields() (needed, rare []field) {
	needed = []field{
		{Name: "redis.url", Label: "Server", As: asText, Broad: true, Holder: "redis://user:password@host:6379/0", Hint: "rediss:// for TLS. The password in it is never shown again."},
		{Name: "redis.mode", Label: "What is written", As: asChoice, Options: []option{{"", "As it is by default: stream"}, {"stream", "stream: an entry for each change"}, {"string", "string: the newest record of each row"}}},
		{Name: "redis.stream", Label: "Stream", As: asText, Holder: "lockstep:{database}:{schema}.{table}"},
	}
	rare = []field{
		{Name: "redis.key", Label: "Key of strings", As: asText, Holder: "{database}:{schema}.{table}:{pk}"},
		{Name: "redis.value", Label: "Value of strings", As: asChoice, Options: append([]option{{"", "As it is by default: record"}}, choices("record", "message")...)},
		{Name: "redis.ttl", Label: "Strings expire after", As: asText},
		{Name: "redis.maxlen", Label: "Entries of a stream", As: asNumber, Hint: "About so many stay. Empty: all."},
		{Name: "redis.cluster", Label: "The hosts are of a Redis Cluster", As: asCheck},
		{Name: "redis.master", Label: "Sentinel's master", As: asText},
		{Name: "redis.connections", Label: "Connections", As: asNumber, Holder: "4"},
	}
	return needed, rare
}

// consumerForm is the form of a new consumer.
func consumerForm(kind string, databases []string) form {
	needed, rare := kindFields(kind)
	first := []field{{Name: "name", Label: "Name", As: asText, Holder: "orders", Hint: "Unique. Workers, links and logs use it."}}
	if len(databases) > 1 {
		first = append(first, field{Name: "database", Label: "Database", As: asChoice, Options: choices(databases...), Hint: "Whose changes it gets."})
	}
	f := form{Groups: []group{{Title: "The consumer", Fields: slices.Concat(first, needed)}, {Title: "Which changes", Fields: selectionFields()}}}
	f.Groups = append(f.Groups, group{Title: "Where it begins", Fields: []field{
		{Name: "start", Label: "Start", As: asText, Holder: "now", Hint: "now, beginning (all that is kept), seq:1234, a time such as 2026-11-01T00:00:00Z, or 1h for an hour ago."},
		{Name: "backfill", Label: "Send the rows that exist first", As: asCheck, Hint: "As action read, between the changes, so that none is missed."},
	}})
	f.Groups = append(f.Groups, group{Title: "Delivery: order, attempts, batches", Rare: true, Fields: deliveryFields(kind)})
	if len(rare) > 0 {
		f.Groups = append(f.Groups, group{Title: "More about the destination", Rare: true, Fields: rare})
	}
	return f
}

// settingsForm is the form that changes a consumer: what is fixed is not in it.
func settingsForm(kind string) form {
	needed, rare := kindFields(kind)
	f := form{Groups: []group{{Title: "Which changes", Fields: selectionFields()}, {Title: "Delivery", Fields: deliveryFields(kind)}}}
	if len(needed) > 0 {
		for i := range needed {
			needed[i].settled()
		}
		for i := range rare {
			rare[i].settled()
		}
		f.Groups = append(f.Groups, group{Title: "Destination", Fields: needed}, group{Title: "More about the destination", Rare: true, Fields: rare})
	}
	return f
}

// settled gives the field of something that is there the words for what pages do not
// show.
func (f *field) settled() {
	switch {
	case f.Secret():
		f.Holder = "not shown; enter another to replace it"
	case strings.HasSuffix(f.Name, ".url"):
		f.Hint = "What may be secret in it is not shown. To change it, enter the whole."
	case f.Name == "webhook.headers":
		f.Hint = "Their values are not shown. To change one, enter them all."
	}
}
