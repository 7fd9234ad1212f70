package serve

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestThePageNeedsNothingFromOutside(t *testing.T) {
	r := newRig(t, nil)
	for path, kind := range map[string]string{"/": "text/html", "/app.js": "text/javascript", "/style.css": "text/css", "/icon.svg": "image/svg+xml"} {
		status, b, head := r.do("GET", path, nil)
		if status != 200 || !strings.HasPrefix(head.Get("Content-Type"), kind) || len(b) == 0 {
			t.Errorf("%s: status %d, %v", path, status, head)
		}
		text := strings.ReplaceAll(string(b), "http://www.w3.org/2000/svg", "")
		for _, word := range []string{"http://", "https://", "//cdn", "innerHTML", "eval(", " style=\"", " onclick=\""} {
			if strings.Contains(text, word) {
				t.Errorf("%s has %q", path, word)
			}
		}
	}
}

// The page in a real browser, with a model that answers at once. PLAYWRIGHT names the folder of playwright-core; SCREENSHOTS one
// for pictures.
func TestThePageInABrowser(t *testing.T) {
	playwright, folder := os.Getenv("PLAYWRIGHT"), os.Getenv("SCREENSHOTS")
	if playwright == "" {
		t.Skip("needs Chromium and PLAYWRIGHT, the folder of playwright-core; step browser of .ci/run drives the page with both")
	}
	if folder == "" {
		folder = t.TempDir()
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs node, with PLAYWRIGHT; step browser of .ci/run drives the page with both")
	}
	// The embedded model is driven by the same script: longtake serve --load 0, then node serve/testdata/page.mjs URL FOLDER.
	r := newRig(t, func(o *Options, _ *toy) {
		o.Store = openStore(t)
		var err error
		if o.Realtime, err = NewWebRTC(); err != nil {
			t.Fatal(err)
		}
		m := o.Models[0]
		m.Actions = []string{"noop", "forward", "turn_right"}
		m.Keys = map[string]string{"KeyW": "forward", "KeyD": "turn_right", "ArrowLeft": "turn_right"}
		m.Steer = func(held []string) int {
			for _, k := range held {
				return map[string]int{"KeyW": 1, "KeyD": 2, "ArrowLeft": 2}[k]
			}
			return 0
		}
	})
	out, err := exec.CommandContext(t.Context(), node, "testdata/page.mjs", r.web.URL+"/", folder).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
