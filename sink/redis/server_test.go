package redis

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// startServer starts the machine's redis-server for a test, and returns its address;
// false: there is none.
func startServer(t testing.TB) (address string, ok bool) {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return "", false
	}
	// Somebody may take the port before the server does.
	for range 5 {
		if address, err = tryServer(t, program); err == nil {
			return address, true
		}
	}
	t.Fatalf("redis-server: %v", err)
	return "", false
}

func tryServer(t testing.TB, program string) (string, error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address := listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err := errors.Join(err, listener.Close()); err != nil {
		return "", err
	}
	cmd := exec.Command(program, "--bind", "127.0.0.1", "--port", port, "--requirepass", password, "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed, or did not start, which is seen
		close(ended)
	}()
	client := goredis.NewClient(&goredis.Options{Addr: address, Password: password, Protocol: 2, MaxRetries: -1})
	defer func() { _ = client.Close() }()
	deadline, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for client.Ping(deadline).Err() != nil {
		select {
		case <-ended:
			return "", errors.New("it ended at once")
		case <-deadline.Done():
			_ = cmd.Process.Kill()
			<-ended
			return "", deadline.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it holds nothing
		<-ended
	})
	return address, nil
}
