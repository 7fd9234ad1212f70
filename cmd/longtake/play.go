package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"

	"longtake/serve"
)

// playCommand holds the flags of "play".
type playCommand struct {
	Port      int  `default:"0" placeholder:"N" help:"Port on 127.0.0.1. Default: any that is free."`
	NoBrowser bool `help:"Print the address instead of opening a browser."`
	serveFlags
}

// Help is shown below the flags' summary.
func (*playCommand) Help() string {
	return `Opens a world in the browser: W A S D or the arrow keys walk, Ctrl-C ends.`
}

// Run serves one player on loopback until it is interrupted.
func (c *playCommand) Run(ctx context.Context, out *streams) error {
	if c.Port < 0 || c.Port > 65535 {
		return usagef("--port %d: must be between 0 and 65535", c.Port)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", c.Port))
	if err != nil {
		return usagef("--port %d: %w", c.Port, err)
	}
	defer l.Close()
	// One player decides alone how busy the machine is.
	h, err := c.open(ctx, out, 0, serve.Options{})
	if err != nil {
		return err
	}
	defer h.close()
	url := pageURL(l.Addr(), nil, false)
	fmt.Fprintf(out.err, "longtake: playing at %s\n", url)
	if !c.NoBrowser {
		if err := openBrowser(ctx, url); err != nil {
			fmt.Fprintf(out.err, "longtake: no browser was opened (%v): open the address yourself\n", err)
		}
	}
	return h.server.Listen(ctx, l, 0)
}

// openBrowser asks the system to show a page.
func openBrowser(ctx context.Context, url string) error {
	program, args := "xdg-open", []string{url}
	switch runtime.GOOS {
	case "darwin":
		program = "open"
	case "windows":
		program, args = "rundll32", []string{"url.dll,FileProtocolHandler", url}
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return errors.New("there is no " + program)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait()
	return nil
}
