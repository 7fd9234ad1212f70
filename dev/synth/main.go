// Command synth writes checkpoints of the Wan families with random weights in the official layouts, for timing at full size
// where the real weights cannot be had: "go run ./dev/synth -o DIR -size 1.3b".
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"longtake/compute"
	"longtake/internal/synth"
)

func main() {
	dir := flag.String("o", "", "folder to write")
	size := flag.String("size", "tiny", "tiny, 1.3b or 14b")
	layout := flag.String("family", "self-forcing", "self-forcing, rolling-forcing, longlive, causvid or wan-causal-14b")
	half := flag.Bool("bf16", false, "store the network as bfloat16 (the published files are float32)")
	seed := flag.Uint64("seed", 1, "seed of the numbers")
	few := flag.Bool("few-text-layers", false, "write umT5 with two layers")
	tied := flag.Bool("tied", false, "project keys as queries, so that attention follows the content")
	textOnly := flag.Bool("text-only", false, "write the text encoder and the tokenizer alone")
	flag.Parse()
	if err := write(*dir, *size, *layout, *half, *few, *textOnly, *tied, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "synth:", err)
		os.Exit(1)
	}
}

func write(dir, size, layout string, half, few, textOnly, tied bool, seed uint64) error {
	if dir == "" {
		return fmt.Errorf("-o names the folder to write")
	}
	var s synth.Set
	switch size {
	case "tiny":
		s = synth.TinySet()
	case "1.3b":
		s = synth.SelfForcing(synth.Net1B3, synth.T5XXL)
	case "14b":
		s = synth.SelfForcing(synth.Net14B, synth.T5XXL)
		s.Wan = "wan_models/Wan2.1-T2V-14B"
	default:
		return fmt.Errorf("-size %q: tiny, 1.3b or 14b", size)
	}
	s, ok := s.Family(layout)
	if !ok {
		return fmt.Errorf("-family %q", layout)
	}
	if half {
		s.Store = compute.BF16
	}
	s.Net.Tied = tied
	s.NoNetwork, s.NoVAE = textOnly, textOnly
	if s.Seed = seed; few {
		s.T5 = s.T5.FewLayers()
	}
	began := time.Now()
	if err := s.Write(dir); err != nil {
		return err
	}
	fmt.Printf("%s: %s, %s in %.1f s\n", dir, layout, size, time.Since(began).Seconds())
	return nil
}
