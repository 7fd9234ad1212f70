package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"longtake/api"
	"longtake/client"
	"longtake/serve"
)

// program starts "longtake serve" as a process of its own and waits until it answers.
func program(t *testing.T, args ...string) (*exec.Cmd, *client.Client) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"serve", "--listen", addr, "--load", "0", "--device", "cpu"}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	c := &client.Client{URL: "http://" + addr}
	for deadline := time.Now().Add(time.Minute); ; {
		if _, err := c.Models(t.Context()); err == nil {
			return cmd, c
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not answer")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// frames reads n frames of a player.
func frames(t *testing.T, p *client.Player, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for n > 0 {
		m, err := p.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if m.Frame != nil {
			n--
		}
	}
}

func TestWhatAKilledServerLeavesCanBeReadAndATerminatedOneEndsWell(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs signals of Unix: runs on Linux and macOS")
	}
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		data := t.TempDir()
		cmd, c := program(t, "--data", data, "--quiet")
		x, err := c.CreateSession(t.Context(), api.SessionRequest{Seed: 5})
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Watch(t.Context(), x.ID, "jpeg")
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Send(t.Context(), api.Control{Type: "record", Record: true}); err != nil {
			t.Fatal(err)
		}
		// Fragments reach the disk every second or two; under the race detector, or on a busy machine, later.
		began := time.Now()
		for size := int64(0); size < 1000 && time.Since(began) < time.Minute; {
			frames(t, p, 1)
			if tapes, _ := filepath.Glob(filepath.Join(data, "recordings", "*.webm*")); len(tapes) == 1 {
				if info, err := os.Stat(tapes[0]); err == nil {
					size = info.Size()
				}
			}
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		err = cmd.Wait()
		if signal == syscall.SIGTERM && err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
		p.Cut()
		in, err := os.Open(filepath.Join(data, "logs", x.ID+".jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		events, err := serve.ReadLog(in, 1000)
		in.Close()
		if err != nil {
			t.Fatal(err)
		}
		if whole := events[len(events)-1].Type == "end"; whole != (signal == syscall.SIGTERM) {
			t.Errorf("%v: the log's end is there: %v", signal, whole)
		}
		tapes, err := filepath.Glob(filepath.Join(data, "recordings", "*.webm"))
		if err != nil || len(tapes) != 1 {
			t.Fatalf("%v: recordings %v, %v", signal, tapes, err)
		}
		if info, err := os.Stat(tapes[0]); err != nil || info.Size() < 1000 {
			t.Errorf("%v: the recording has %d bytes", signal, info.Size())
		}
	}
}
