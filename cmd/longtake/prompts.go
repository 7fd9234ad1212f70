package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Limits of prompt files.
const (
	maxPromptFile = 64 << 20
	maxVideos     = 100_000
	maxTurns      = 1000
)

// script is what one video is told to show: prompts that take turns, each for an equal share of the chunks.
type script []string

// readPrompts reads a file of prompts: .jsonl has an object a line, everything else a prompt a line. Empty lines do not count.
func readPrompts(path string) ([]script, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usagef("--prompt-file: read %s: %w", path, cause(err))
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxPromptFile+1))
	if err != nil {
		return nil, usagef("--prompt-file: read %s: %w", path, cause(err))
	}
	if len(raw) > maxPromptFile {
		return nil, usagef("--prompt-file %s: larger than %d MiB", path, maxPromptFile>>20)
	}
	scripts, err := parsePrompts(raw, strings.EqualFold(filepath.Ext(path), ".jsonl"))
	if err != nil {
		return nil, usagef("--prompt-file %s: %w", path, err)
	}
	return scripts, nil
}

func parsePrompts(raw []byte, objects bool) (out []script, err error) {
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, maxTurns*maxPromptBytes)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\ufeff"))
		if line == "" {
			continue
		}
		s := script{line}
		if objects {
			if s, err = parseScript(line); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
		}
		for _, p := range s {
			if len(p) > maxPromptBytes {
				return nil, fmt.Errorf("line %d: a prompt of %d bytes, at most %d", n, len(p), maxPromptBytes)
			}
		}
		if out = append(out, s); len(out) > maxVideos {
			return nil, fmt.Errorf("more than %d prompts", maxVideos)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no prompt in it")
	}
	return out, nil
}

// parseScript reads {"prompts": ["...", "..."]} or {"prompt": "..."}; other keys are left alone.
func parseScript(line string) (script, error) {
	var v struct {
		Prompt  *string  `json:"prompt"`
		Prompts []string `json:"prompts"`
	}
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		return nil, fmt.Errorf("want an object with \"prompts\": %w", err)
	}
	switch {
	case v.Prompt != nil && v.Prompts == nil:
		return script{*v.Prompt}, nil
	case v.Prompt == nil && len(v.Prompts) > 0 && len(v.Prompts) <= maxTurns:
		return v.Prompts, nil
	}
	return nil, fmt.Errorf("want \"prompt\" or 1 to %d \"prompts\"", maxTurns)
}

// at is the prompt of chunk i of n.
func (s script) at(i, n int) string { return s[min(i*len(s)/max(n, 1), len(s)-1)] }

// numbered is an output's path for the i-th of n videos: a-0001.mp4, and for a folder of pictures a-0001.
func numbered(path string, i, n int) string {
	if n == 1 {
		return path
	}
	ext := filepath.Ext(path)
	return fmt.Sprintf("%s-%04d%s", strings.TrimSuffix(path, ext), i+1, ext)
}
