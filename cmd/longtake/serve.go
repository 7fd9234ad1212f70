package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"longtake/serve"
)

// serveFlags are the flags of the commands that run a server.
type serveFlags struct {
	machineFlags `embed:""`

	Policies string `placeholder:"LIST" help:"Policies that viewers may choose, separated by ';', each NAME=POLICY as --policies of compare takes it; the first is the default, unless flags of a policy are given: theirs then is, by the name of yours. Their memory must be bounded. Default: ${served}; of models without poses ${servedplain}."`

	Prompt string `placeholder:"TEXT" help:"What sessions show that ask for nothing, with models on Wan-2.1. Default: ${usualprompt}."`

	policyFlags

	Memory   string        `placeholder:"SIZE" help:"Most memory of all sessions together, such as 4GiB. Default: 70% of what is free at the start."`
	Sessions int           `placeholder:"N" help:"Most sessions at a time. Default: what memory and --load allow."`
	Idle     time.Duration `default:"5m" help:"End sessions that nobody watches or steps for so long. Default ${default}."`
	Life     time.Duration `default:"24h" help:"End sessions after so long. Default ${default}."`

	Data    string `placeholder:"DIR" help:"Folder for event logs, recordings and videos. Default: longtake in the user's cache folder."`
	NoData  bool   `help:"Keep no files."`
	WebRTC  bool   `name:"webrtc" default:"true" negatable:"" help:"Offer video by WebRTC, too. Default yes."`
	LogJSON bool   `name:"log-json" help:"Write the log as JSON lines."`
	Pprof   string `placeholder:"ADDR" help:"Serve profiles on this loopback address, such as 127.0.0.1:6060."`
}

// serveCommand holds the flags of "serve".
type serveCommand struct {
	Listen string        `default:"127.0.0.1:7860" placeholder:"ADDR" help:"Address and port. Anything but loopback needs a token. Default ${default}."`
	Token  []string      `env:"LONGTAKE_TOKEN" placeholder:"TEXT" help:"Token that callers must show; may be repeated. Better given in LONGTAKE_TOKEN. Default: none on loopback, else a new one, printed at the start."`
	NoAuth bool          `name:"insecure-no-auth" help:"Let everybody in who reaches the address."`
	Host   []string      `placeholder:"NAME" help:"Host names that the server answers to, besides its addresses and localhost; may be repeated."`
	Origin []string      `placeholder:"URL" help:"Origins of other pages that may call the server; may be repeated. Default: none."`
	Load   float64       `default:"0.9" help:"Largest share of the engine that live sessions may need together; 0 is no bound. Default ${default}."`
	Drain  time.Duration `default:"0s" help:"After SIGTERM, wait so long for sessions to end by themselves. Default ${default}."`
	serveFlags
}

// Help is shown below the flags' summary.
func (*serveCommand) Help() string {
	return `Examples:

  longtake serve                                    then open http://127.0.0.1:7860
  LONGTAKE_TOKEN=... longtake serve --listen 0.0.0.0:7860 --host play.example.org
  curl -s localhost:7860/v1/sessions -H 'Content-Type: application/json' -d '{"mode":"step","seed":7}'
  curl -s localhost:7860/v1/sessions/ID/step -H 'Content-Type: application/json' -d '{"actions":["forward","forward"]}'

The API is described at /openapi.json. The server speaks HTTP without TLS: put it behind a proxy that adds it.`
}

// Run serves until it is interrupted.
func (c *serveCommand) Run(ctx context.Context, out *streams) error {
	if c.Load < 0 || c.Drain < 0 {
		return usagef("--load and --drain must not be negative")
	}
	tokens, err := c.tokens()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return usagef("--listen %s: %w", c.Listen, err)
	}
	defer l.Close()
	h, err := c.open(ctx, out, c.Load, serve.Options{Tokens: tokens, Hosts: c.Host, Origins: c.Origin})
	if err != nil {
		return err
	}
	defer h.close()
	fmt.Fprintf(out.err, "longtake: open %s\n", pageURL(l.Addr(), tokens, len(c.Token) > 0))
	if c.NoAuth {
		stop := warnEveryMinute(h.logger)
		defer stop()
	}
	return h.server.Listen(ctx, l, c.Drain)
}

// tokens are the tokens that callers must show, a new one where one is needed and none was given.
func (c *serveCommand) tokens() ([]string, error) {
	for _, t := range c.Token {
		if len(t) < 16 {
			return nil, usagef("--token: at least 16 characters")
		}
	}
	switch {
	case c.NoAuth && len(c.Token) > 0:
		return nil, usagef("--token and --insecure-no-auth exclude each other")
	case len(c.Token) > 0 || c.NoAuth:
		return c.Token, nil
	}
	local, err := loopback(c.Listen)
	if err != nil || local {
		return nil, err
	}
	return []string{rand.Text()}, nil
}

// loopback reports whether an address can be reached from this machine only.
func loopback(listen string) (bool, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false, usagef("%q: an address and a port are wanted, such as 127.0.0.1:7860", listen)
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback(), nil
}

// pageURL is what to open in a browser. A token that nobody chose is shown behind "#", which browsers keep to themselves.
func pageURL(a net.Addr, tokens []string, given bool) string {
	host, port, _ := net.SplitHostPort(a.String())
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	url := "http://" + net.JoinHostPort(host, port) + "/"
	if len(tokens) > 0 && !given {
		url += "#token=" + tokens[0]
	}
	return url
}

func warnEveryMinute(logger *slog.Logger) (stop func()) {
	const text = "everybody who reaches this address may use the server: --insecure-no-auth"
	logger.Warn(text)
	tick := time.NewTicker(time.Minute)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-tick.C:
				logger.Warn(text)
			case <-done:
				return
			}
		}
	}()
	return func() { tick.Stop(); close(done) }
}

// hosting is an open server with all that it stands on.
type hosting struct {
	lab    *lab
	store  *serve.Store
	server *serve.Server
	logger *slog.Logger
	pprof  *http.Server
	data   string // the store's folder
}

func (h *hosting) close() {
	if h.server != nil {
		h.server.Close()
	}
	if h.pprof != nil {
		h.pprof.Close()
	}
	if h.store != nil {
		h.store.Close()
	}
	h.lab.close()
}

// open loads the model and makes a server, warm and ready.
func (f *serveFlags) open(ctx context.Context, out *streams, load float64, o serve.Options) (_ *hosting, err error) {
	if f.Sessions < 0 || f.Idle <= 0 || f.Life <= 0 {
		return nil, usagef("--sessions must not be negative, --idle and --life must be positive")
	}
	l, err := f.machineFlags.open(out)
	if err != nil {
		return nil, err
	}
	h := &hosting{lab: l, logger: f.logger(out.err)}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	m, err := servedModel(l, f.Policies, f.Prompt, f.policyFlags)
	if err != nil {
		return nil, err
	}
	budget, err := f.budget(l)
	if err != nil {
		return nil, err
	}
	if h.store, h.data, err = f.store(); err != nil {
		return nil, err
	}
	if h.pprof, err = profiles(f.Pprof); err != nil {
		return nil, err
	}
	if f.WebRTC {
		if o.Realtime, err = serve.NewWebRTC(); err != nil {
			return nil, err
		}
	}
	o.Models, o.Store, o.Logger = []*serve.Model{m}, h.store, h.logger
	o.Ledger = serve.NewLedger(budget, f.Sessions, load)
	o.Limits.Idle, o.Limits.Life = f.Idle, f.Life
	if h.server, err = serve.New(o); err != nil {
		return nil, err
	}
	chunk, err := h.server.Warm(ctx)
	if err != nil {
		return nil, err
	}
	h.logger.Info("ready", "model", m.Name, "device", l.dev.Device.Name(), "chunk", chunk.Round(time.Microsecond), "weights", m.WeightBytes,
		"budget", budget, "start_up", time.Since(out.began).Round(time.Millisecond))
	return h, nil
}

func (f *serveFlags) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	if f.Quiet {
		options.Level = slog.LevelWarn
	}
	if f.LogJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// budget is the memory that sessions may take together.
func (f *serveFlags) budget(l *lab) (int64, error) {
	if f.Memory == "" {
		return l.dev.Device.Memory().Free / 10 * 7, nil
	}
	frames, bytes, err := parseBudget(f.Memory)
	if err != nil || frames != 0 {
		return 0, usagef("--memory %q: write bytes such as 512MiB or 4GiB", f.Memory)
	}
	return bytes, nil
}

// store opens the folder of event logs, recordings and videos.
func (f *serveFlags) store() (s *serve.Store, dir string, err error) {
	if f.NoData {
		return nil, "", nil
	}
	if dir = f.Data; dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = os.TempDir()
		}
		dir = filepath.Join(cache, "longtake")
	}
	if s, err = serve.OpenStore(dir); err != nil {
		return nil, "", usagef("--data %s: %w", dir, cause(err))
	}
	return s, dir, nil
}

// profiles serves pprof on a loopback address of its own, never on the server's.
func profiles(addr string) (*http.Server, error) {
	if addr == "" {
		return nil, nil
	}
	if local, err := loopback(addr); err != nil || !local {
		return nil, errors.Join(usagef("--pprof %s: a loopback address is wanted", addr), err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, usagef("--pprof %s: %w", addr, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	guarded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) || r.Header.Get("Origin") != "" {
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
	s := &http.Server{Handler: guarded, ReadHeaderTimeout: 10 * time.Second}
	go s.Serve(l)
	return s, nil
}

// before puts the policy of the flags, if any are given, before a list of served ones.
func (f policyFlags) before(list string) string {
	if !f.given() {
		return list
	}
	return "yours=" + f.text() + ";" + list
}

// servedPolicies reads "NAME=POLICY; NAME=POLICY".
func servedPolicies(list string) (names, items []string, err error) {
	for part := range strings.SplitSeq(list, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, item, ok := strings.Cut(part, "=")
		if !ok || strings.ContainsAny(name, ":, ") {
			name, item = part, part
		}
		if slices.Contains(names, name) || len(name) > 64 {
			return nil, nil, usagef("--policies: the name %.70q is there twice or longer than 64 characters", name)
		}
		names, items = append(names, name), append(items, item)
	}
	if len(names) == 0 {
		return nil, nil, usagef("--policies: an empty list")
	}
	return names, items, nil
}
