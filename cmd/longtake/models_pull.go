package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"longtake/internal/pull"
	"longtake/model"
)

// pullSource is the environment variable that names where released models are.
const pullSource = "LONGTAKE_PULL_FROM"

// pullCommand holds the flags of "models pull".
type pullCommand struct {
	Name  string `arg:"" help:"A released model: ${released}; with --sums any name."`
	From  string `placeholder:"DIR|URL" help:"Folder or https URL with the models' folders in it (DIR/NAME/weights.safetensors). Default: LONGTAKE_PULL_FROM."`
	Sums  string `placeholder:"FILE" help:"What the files must be, as sha256sum writes it, for a model that this program does not know."`
	Store string `placeholder:"DIR" help:"Folder to bring it to. Default: the own store (LONGTAKE_MODELS)."`
	Force bool   `help:"Replace another model of that name."`
	Quiet bool   `short:"q" help:"Print errors only."`
}

// Help is shown below the flags' summary.
func (*pullCommand) Help() string {
	return `Examples:

  longtake models pull world-hd --from ~/Downloads
  LONGTAKE_PULL_FROM=https://models.example.org/longtake longtake models pull world-hd
  longtake models pull mine --from /mnt/models --sums /mnt/models/mine/SHA256SUMS
  longtake play --model world-hd --device cuda

Nothing is fetched from anywhere that is not named here. A pull that was cut off goes on where it ended, and a model gets its name when every file equals its SHA-256.`
}

// Run pulls.
func (c *pullCommand) Run(ctx context.Context, out *streams) error {
	files, err := c.files()
	if err != nil {
		return err
	}
	where := c.From
	if where == "" {
		where = os.Getenv(pullSource)
	}
	if where == "" {
		return usagef("models pull %s: no source is configured: --from or %s names a folder or https URL in which %s/%s lies", c.Name, pullSource, c.Name, files[0].Name)
	}
	from, err := pull.From(where)
	if err != nil {
		return usagef("models pull %s: %w", c.Name, err)
	}
	store := c.Store
	if store == "" {
		stores := model.UsualPlaces(os.Getenv).Stores
		if len(stores) == 0 {
			return usagef("models pull %s: there is no own store: set LONGTAKE_MODELS, or use --store", c.Name)
		}
		store = stores[0]
	}
	bar := newPullBar(c.Quiet, out)
	err = pull.Into(ctx, store, c.Name, files, from, c.Force, bar.told)
	bar.end()
	at := filepath.Join(store, c.Name)
	switch {
	case errors.Is(err, pull.ErrHere):
		c.say(out, "%s: is there already, every file as it must be", at)
		return nil
	case err != nil:
		return err
	}
	c.say(out, "%s: %d files, each equal to its SHA-256; use it as --model %s", at, len(files), c.Name)
	return nil
}

func (c *pullCommand) say(out *streams, format string, args ...any) {
	if !c.Quiet {
		fmt.Fprintf(out.err, format+"\n", args...)
	}
}

// files are what the model's files must be.
func (c *pullCommand) files() (files []pull.File, err error) {
	if !pull.PlainName(c.Name) || c.Name != strings.ToLower(c.Name) {
		return nil, usagef("models pull %.80q: a model's name has small letters, digits, \"-\", \"_\" and \".\"", c.Name)
	}
	if _, taken := models[c.Name]; taken {
		return nil, usagef("models pull %s: it is part of the program", c.Name)
	}
	if _, taken := model.FamilyNamed(c.Name); taken {
		return nil, usagef("models pull %s: its files are had from its authors; longtake models list says where they are looked for", c.Name)
	}
	if c.Sums != "" {
		return readSums(c.Sums)
	}
	release, ok := model.ReleaseNamed(c.Name)
	if !ok {
		return nil, usagef("models pull %s: not released by this project (%s); --sums FILE says what the files of another model must be", c.Name, model.Released())
	}
	for _, f := range release.Files {
		files = append(files, pull.File(f))
	}
	return files, nil
}

// maxSums bounds a file of sums.
const maxSums = 1 << 20

// readSums reads lines "SHA256  NAME", as sha256sum writes them.
func readSums(path string) (files []pull.File, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usagef("--sums %s: %w", path, cause(err))
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxSums))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		sum, name, _ := strings.Cut(line, " ")
		name = strings.TrimPrefix(strings.TrimLeft(name, " "), "*")
		if _, err := hex.DecodeString(sum); err != nil || len(sum) != 64 || !pull.PlainName(name) {
			return nil, usagef("--sums %s: the line %.100q is not a SHA-256 and a plain file name", path, line)
		}
		files = append(files, pull.File{Name: name, SHA256: strings.ToLower(sum)})
	}
	if err := lines.Err(); err != nil || len(files) == 0 {
		return nil, usagef("--sums %s: no lines of SHA-256 and name in it", path)
	}
	return files, nil
}

// pullBar shows how much of a file has come: a bar in a terminal, else a line now and then.
type pullBar struct {
	out  io.Writer
	all  *mpb.Progress
	bar  *mpb.Bar
	name string
	next time.Time
}

func newPullBar(quiet bool, out *streams) *pullBar {
	b := &pullBar{next: time.Now().Add(lineEvery)}
	if screen, ok := terminal(out.err); quiet {
		b.out = io.Discard
	} else if b.out = out.err; ok && showsLines(screen) {
		b.all = mpb.New(mpb.WithOutput(screen), mpb.WithWidth(80), mpb.WithRefreshRate(200*time.Millisecond))
	}
	return b
}

// told is a pull.Progress.
func (b *pullBar) told(name string, there, total int64) {
	if b.all == nil {
		if now := time.Now(); now.After(b.next) {
			b.next = now.Add(lineEvery)
			fmt.Fprintf(b.out, "%s: %s of %s\n", name, bytesText(there), bytesText(total))
		}
		return
	}
	if name != b.name {
		b.done()
		b.name, b.bar = name, b.all.New(total, mpb.BarStyle().Rbound("|").Lbound("|"),
			mpb.PrependDecorators(decor.Name(name+" "), decor.CountersKibiByte("% .1f / % .1f ")),
			mpb.AppendDecorators(decor.AverageSpeed(decor.SizeB1024(0), " % .1f")))
	}
	b.bar.SetCurrent(there)
}

func (b *pullBar) done() {
	if b.bar != nil {
		b.bar.Abort(false) // nothing happens if it is complete
	}
}

func (b *pullBar) end() {
	if b.all != nil {
		b.done()
		b.all.Wait()
	}
}
