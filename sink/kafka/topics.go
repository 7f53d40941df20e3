package kafka

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lockstep/sink"
)

// limit returns the largest batch of a topic, compressed or not.
func (k *Kafka) limit(topic string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := k.topics[topic]; n > 0 {
		return n
	}
	return DefaultMaximum
}

// ready looks for a topic that was not met yet, asks what it takes, and makes it when
// it is missing.
func (k *Kafka) ready(ctx context.Context, topic string) error {
	k.mu.Lock()
	_, known := k.topics[topic]
	k.mu.Unlock()
	if known {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, k.config.Timeout)
	defer cancel()
	there, err := k.exists(ctx, topic)
	if err != nil {
		return err
	}
	if !there {
		if k.config.Create == Never {
			return k.refusal(sink.Refused, "the topic "+topic+" does not exist: create it, or set create: missing", nil)
		}
		if err := k.create(ctx, topic); err != nil {
			return err
		}
	}
	largest := k.largest(ctx, topic)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.topics[topic] = largest
	return nil
}

func (k *Kafka) exists(ctx context.Context, topic string) (bool, error) {
	request := kmsg.NewPtrMetadataRequest()
	request.AllowAutoTopicCreation = false
	one := kmsg.NewMetadataRequestTopic()
	one.Topic = &topic
	request.Topics = append(request.Topics, one)
	response, err := request.RequestWith(ctx, k.client)
	if err != nil {
		return false, k.judge(ctx, err, "look for the topic "+topic)
	}
	for _, t := range response.Topics {
		err := kerr.ErrorForCode(t.ErrorCode)
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return false, nil
		}
		if err != nil {
			return false, k.judge(ctx, err, "look for the topic "+topic)
		}
	}
	return true, nil
}

func (k *Kafka) create(ctx context.Context, topic string) error {
	request := kmsg.NewPtrCreateTopicsRequest()
	one := kmsg.NewCreateTopicsRequestTopic()
	one.Topic, one.NumPartitions, one.ReplicationFactor = topic, -1, -1
	if k.config.Partitions > 0 {
		one.NumPartitions = int32(k.config.Partitions)
	}
	if k.config.Replication > 0 {
		one.ReplicationFactor = int16(k.config.Replication)
	}
	request.Topics = append(request.Topics, one)
	response, err := request.RequestWith(ctx, k.client)
	if err != nil {
		return k.judge(ctx, err, "create the topic "+topic)
	}
	for _, t := range response.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return k.judge(ctx, err, "create the topic "+topic)
		}
	}
	return nil
}

// largest asks for max.message.bytes. Who may not ask is told when it is too much.
func (k *Kafka) largest(ctx context.Context, topic string) int {
	request := kmsg.NewPtrDescribeConfigsRequest()
	one := kmsg.NewDescribeConfigsRequestResource()
	one.ResourceType, one.ResourceName, one.ConfigNames = kmsg.ConfigResourceTypeTopic, topic, []string{"max.message.bytes"}
	request.Resources = append(request.Resources, one)
	response, err := request.RequestWith(ctx, k.client)
	if err != nil || len(response.Resources) == 0 {
		return DefaultMaximum
	}
	configs := response.Resources[0].Configs
	i := slices.IndexFunc(configs, func(c kmsg.DescribeConfigsResponseResourceConfig) bool { return c.Name == "max.message.bytes" })
	if i < 0 || configs[i].Value == nil {
		return DefaultMaximum
	}
	n, err := strconv.Atoi(*configs[i].Value)
	if err != nil || n < 1024 {
		return DefaultMaximum
	}
	return min(n, 64<<20)
}

// forget makes the next record of a topic look for it again.
func (k *Kafka) forget(topic string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.topics, topic)
	k.client.PurgeTopicsFromProducing(topic)
}
