// Command longtake makes endless video with autoregressive diffusion models, one frame after the other.
//
// What enters: flags, files they name, and signals. What leaves: a video with a record of how it was made beside it, messages
// on standard error, and on request one JSON object on standard output. Exit codes: 0 done, 1 failed at run time, 2 bad usage
// or input, 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"longtake/rollout"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// commands is the whole command line.
type commands struct {
	Generate generateCommand `cmd:"" help:"Generate a video file."`
	Compare  compareCommand  `cmd:"" help:"Make one video under several policies and compare them."`
	Bench    benchCommands   `cmd:"" help:"Measure speed and size, as Go benchmark lines, or along a long rollout."`
	Forward  forwardCommand  `cmd:"" help:"Time one forward of a network by itself."`
	Eval     evalCommand     `cmd:"" help:"Test what a model remembers."`
	Analyze  analyzeCommand  `cmd:"" help:"Study how much of a model's attention is redundant."`
	Serve    serveCommand    `cmd:"" help:"Serve live worlds to browsers and programs."`
	Play     playCommand     `cmd:"" help:"Walk through a world in the browser."`
	Replay   replayCommand   `cmd:"" help:"Make the frames of a served session again from its event log, hash for hash."`
	Models   modelsCommand   `cmd:"" help:"List the models, or look into a weight file."`
	Doctor   doctorCommand   `cmd:"" help:"Look at this machine and test every kernel class that it can run."`
	Version  versionCommand  `cmd:"" help:"Print the version."`

	Calibrate calibrateCommand `cmd:"" help:"Find out which attention heads are worth thinning."`
}

// streams is the outside world of a command.
type streams struct {
	in       io.Reader
	out, err io.Writer
	began    time.Time // when the process, or the test, called run
}

// usageError is what the user can put right: exit code 2.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the default action is back, so that a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program: args without the program's name, messages to stderr, results to stdout. It returns the exit code, and
// ends early when ctx is cancelled.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		if fault := recover(); fault != nil {
			fmt.Fprintf(stderr, "longtake: internal fault: %v\n", fault)
			code = exitFailed
		}
	}()
	world := &streams{stdin, stdout, stderr, time.Now()}
	asked := -1 // exit code after --help
	parser, err := kong.New(new(commands),
		kong.Name("longtake"),
		kong.Description("Endless video from autoregressive diffusion models with a KV cache.\n\nTry: longtake generate --frames 240 --seed 7 -o walk.webm"),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { asked = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.Vars(names()),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(world),
	)
	if err != nil {
		panic(err) // the struct tags are wrong
	}
	parsed, err := parser.Parse(normalize(args))
	switch {
	case asked >= 0:
		return asked
	case err != nil:
		return fail(ctx, stderr, usagef("%w (longtake --help tells more)", err))
	}
	if err := parsed.Run(); err != nil {
		return fail(ctx, stderr, err)
	}
	return exitDone
}

// fail prints an error and returns its exit code.
func fail(ctx context.Context, stderr io.Writer, err error) int {
	var usage usageError
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "longtake: interrupted, nothing was written")
		return exitInterrupted
	case errors.As(err, &usage), errors.Is(err, rollout.ErrRequest):
		fmt.Fprintf(stderr, "longtake: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "longtake: %v\n", err)
	return exitFailed
}

// normalize lets flags be written with "_" for "-", as other tools of the field do, and joins a flag to the negative number
// that follows it, which would pass for another flag.
func normalize(args []string) []string {
	out := make([]string, 0, len(args))
	for i, a := range args {
		if a == "--" {
			return append(out, args[i:]...)
		}
		if len(a) > 1 && a[0] == '-' && '0' <= a[1] && a[1] <= '9' && len(out) > 0 && longFlag(out[len(out)-1]) {
			out[len(out)-1] += "=" + a
			continue
		}
		if strings.HasPrefix(a, "--") {
			name, value, given := strings.Cut(a, "=")
			a = strings.ReplaceAll(name, "_", "-")
			if given {
				a += "=" + value
			}
		}
		out = append(out, a)
	}
	return out
}

// longFlag reports whether a is a long flag without a value.
func longFlag(a string) bool { return strings.HasPrefix(a, "--") && !strings.Contains(a, "=") }
