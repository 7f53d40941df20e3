package kafka

import (
	"compress/gzip"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"lockstep"
)

// configure checks the configuration, fills in the defaults and makes the client's
// options of it.
func (k *Kafka) configure() ([]kgo.Opt, error) {
	c := &k.config
	var wrong []error
	note := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	c.Key = or(c.Key, KeyPrimary)
	c.Create = or(c.Create, Missing)
	c.Compression = or(c.Compression, Gzip)
	c.Timeout = or(c.Timeout, DefaultTimeout)
	k.name = strings.Join(c.Brokers, ",")
	if len(c.Brokers) == 0 {
		note("brokers: say where some of them are: [host:9092]")
	}
	for _, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			note("brokers: %q: expected host:port", b)
		}
	}
	if c.Key != KeyPrimary && c.Key != KeyOrder {
		note("key: %q is not known: use primary or order", c.Key)
	}
	if c.Create != Missing && c.Create != Never {
		note("create: %q is not known: use missing or never", c.Create)
	}
	if c.Partitions < 0 || c.Replication < 0 || c.Linger < 0 || c.Timeout < 0 {
		note("partitions, replication and times must not be negative")
	}
	codec, ok := codecs()[c.Compression]
	if !ok {
		note("compression: %q is not known: use gzip, none, snappy, lz4 or zstd", c.Compression)
	}
	mechanism, err := c.sasl()
	if err := errors.Join(append(wrong, err)...); err != nil {
		return nil, fmt.Errorf("kafka: %w: %w", lockstep.ErrInvalid, err)
	}
	return k.options(codec, mechanism), nil
}

// company is how long a record waits for the others of its call, which end the wait when
// they are all there. Without, the first ones would leave alone: a small batch costs as
// much to compress and to send as a large one.
const company = 10 * time.Millisecond

// codecs are the compressions. Gzip is the fastest that there is: on messages the default
// level makes 55 bytes where this makes 63, for twice the time.
func codecs() map[Compression]kgo.CompressionCodec {
	return map[Compression]kgo.CompressionCodec{
		Gzip: kgo.GzipCompression().WithLevel(gzip.BestSpeed), None: kgo.NoCompression(), Snappy: kgo.SnappyCompression(), LZ4: kgo.Lz4Compression(), Zstd: kgo.ZstdCompression(),
	}
}

func (k *Kafka) options(codec kgo.CompressionCodec, mechanism sasl.Mechanism) []kgo.Opt {
	c := k.config
	request := c.request()
	options := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...), kgo.ClientID("lockstep"), kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(or(c.Linger, company)),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProduceRequestTimeout(request),
		kgo.RequestTimeoutOverhead(request), kgo.RetryTimeout(c.Timeout), kgo.DialTimeout(request),
		// A call must end, also when brokers are silent: what they had already then comes twice.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.ProducerBatchMaxBytesFn(func(topic string) int32 { return int32(k.limit(topic)) }),
		kgo.MetadataMinAge(250 * time.Millisecond),
	}
	if mechanism != nil {
		options = append(options, kgo.SASL(mechanism))
	}
	if c.Dial != nil {
		options = append(options, kgo.Dialer(c.Dial))
	} else if c.Secure {
		options = append(options, kgo.DialTLSConfig(or(c.TLS, &tls.Config{MinVersion: tls.VersionTLS12})))
	}
	return options
}

// request is how long one request may take; the client refuses very short ones.
func (c *Config) request() time.Duration { return max(min(c.Timeout, 10*time.Second), time.Second) }

func (c *Config) sasl() (sasl.Mechanism, error) {
	mechanism := strings.ToLower(c.Mechanism)
	if mechanism == "" && c.User == "" && c.Password == "" {
		return nil, nil
	}
	if c.User == "" || c.Password == "" {
		return nil, errors.New("user and password: one needs the other, and a mechanism needs both")
	}
	switch mechanism {
	case "plain", "":
		return plain.Auth{User: c.User, Pass: c.Password}.AsMechanism(), nil
	case "scram-sha-256":
		return scram.Auth{User: c.User, Pass: c.Password}.AsSha256Mechanism(), nil
	case "scram-sha-512":
		return scram.Auth{User: c.User, Pass: c.Password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("mechanism: %q is not known: use plain, scram-sha-256 or scram-sha-512", c.Mechanism)
}

func or[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}
