package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// redisServer is a redis-server on loopback, in memory.
type redisServer struct {
	*lab
	guard   string
	address string
	pid     int
	stop    func() error
	client  *redis.Client
	kept    [][]any // fields of the sink's entries, which the library alone appends in turns
}

// newRedisServer starts redis-server. errNoServer: there is none on the machine.
func newRedisServer(ctx context.Context, l *lab, guard string) (*redisServer, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("redis-server is not on the path: %w", errNoServer)
	}
	dir, err := os.MkdirTemp(l.dir, "redis-")
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	r := &redisServer{lab: l, guard: guard, address: address}
	cmd := exec.Command(program, "--bind", host, "--port", port, "--dir", dir, "--save", "", "--appendonly", "no", "--daemonize", "no")
	end, err := begin(ctx, cmd)
	if err != nil {
		return nil, fmt.Errorf("start redis-server: %w", err)
	}
	r.pid, r.stop = cmd.Process.Pid, end(os.Interrupt)
	r.client = redis.NewClient(&redis.Options{Addr: address, Protocol: 2, PoolSize: sinkConnections, ReadTimeout: time.Minute})
	if err := l.until(ctx, time.Minute, "redis-server did not answer", func() (bool, error) {
		return r.client.Ping(ctx).Err() == nil, nil
	}); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *redisServer) close() error { return errors.Join(r.client.Close(), r.stop()) }

func (r *redisServer) cpu(context.Context) (time.Duration, error) { return processCPU(r.pid) }

const redisStream = "bench"

func (r *redisServer) empty(ctx context.Context) (map[string]any, error) {
	if err := r.keep(ctx); err != nil {
		return nil, err
	}
	settings := map[string]any{"url": "redis://" + r.address, "stream": redisStream, "guard": r.guard, "connections": sinkConnections}
	return settings, r.client.FlushAll(ctx).Err()
}

// keep takes entries of the sink's first run.
func (r *redisServer) keep(ctx context.Context) error {
	if len(r.kept) > 0 {
		return nil
	}
	got, err := r.client.Do(ctx, "XRANGE", redisStream, "-", "+", "COUNT", bodiesKept).Slice()
	if err != nil {
		return err
	}
	for _, entry := range got {
		pair, ok := entry.([]any)
		if !ok || len(pair) != 2 {
			return fmt.Errorf("an entry of redis-server is %T", entry)
		}
		fields, ok := pair[1].([]any)
		if !ok {
			return fmt.Errorf("the fields of an entry of redis-server are %T", pair[1])
		}
		r.kept = append(r.kept, fields)
	}
	return nil
}

func (r *redisServer) count(ctx context.Context) (int, error) {
	n, err := r.client.XLen(ctx, redisStream).Result()
	return int(n), err
}

// bare appends with as many connections and as many entries in a pipeline as the sink.
func (r *redisServer) bare(ctx context.Context, how peer) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(sinkConnections)
	for first := 0; first < r.Rows; first += sinkRows {
		group.Go(func() error {
			p := r.client.Pipeline()
			for i := first; i < min(first+sinkRows, r.Rows); i++ {
				fields := append([]any{"XADD", redisStream, "*"}, r.kept[i%len(r.kept)]...)
				if how == renders {
					body, err := render(i)
					if err != nil {
						return err
					}
					fields[len(fields)-1] = body // message stands last
				}
				p.Do(ctx, fields...)
			}
			_, err := p.Exec(ctx)
			return err
		})
	}
	return group.Wait()
}
