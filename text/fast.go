package text

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"longtake/compute"
)

// fastRules are the parts of a tokenizer.json around its model.
type fastRules struct {
	added   *lexicon // special tokens that are cut out of the text before anything else
	strips  map[int32]addedToken
	steps   []func(string) string // normaliser
	fields  bool                  // words are what lies between white space
	scheme  string                // "always", "first" or "never": which parts get a space in front
	unsplit bool                  // words stay together
	mark    string                // stands for a space
	growth  int                   // how many bytes the steps can make of one
}

// maxGrowth bounds fastRules.growth, so that no file can make a text explode; umT5's is 132.
const maxGrowth = 256

type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	Left       bool   `json:"lstrip"`
	Right      bool   `json:"rstrip"`
}

// jsonPart is a normaliser or pre-tokenizer.
type jsonPart struct {
	Type          string     `json:"type"`
	Normalizers   []jsonPart `json:"normalizers"`
	PreTokenizers []jsonPart `json:"pretokenizers"`
	Charsmap      string     `json:"precompiled_charsmap"`
	StripLeft     bool       `json:"strip_left"`
	StripRight    bool       `json:"strip_right"`
	Pattern       struct{ String, Regex *string }
	Content       string `json:"content"`
	Replacement   string `json:"replacement"`
	AddPrefix     *bool  `json:"add_prefix_space"`
	Scheme        string `json:"prepend_scheme"`
	Split         *bool  `json:"split"`
}

// jsonPieces is a list of [text, score].
type jsonPieces []piece

// UnmarshalJSON stops at maxPieces.
func (v *jsonPieces) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(strings.NewReader(string(b)))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.New("vocab is no list")
	}
	for d.More() {
		if len(*v) == maxPieces {
			return errPieces
		}
		open, _ := d.Token()
		text, _ := d.Token()
		score, _ := d.Token()
		end, err := d.Token()
		p := piece{kind: normalPiece}
		var isText, isNumber bool
		p.text, isText = text.(string)
		p.score, isNumber = score.(float64)
		if err != nil || open != json.Delim('[') || end != json.Delim(']') || !isText || !isNumber {
			return fmt.Errorf("entry %d of vocab is not a text and a score", len(*v))
		}
		*v = append(*v, p)
	}
	return nil
}

// ReadTokenizerJSON reads a tokenizer.json of Hugging Face's tokenizers with a unigram model. The normaliser may be made of
// Precompiled, Strip and Replace, the pre-tokenizer of WhitespaceSplit and Metaspace; anything else is an error that wraps
// compute.ErrUnsupported.
//
// All added tokens are matched in the text as it is, also those marked as normalized; there are none in T5's files.
func ReadTokenizerJSON(data []byte) (*Unigram, error) {
	u := &Unigram{unknown: -1, fast: &fastRules{scheme: "never", mark: space, unsplit: true, growth: 1}}
	if err := u.readJSON(data); err != nil {
		return nil, fmt.Errorf("read tokenizer.json: %w", err)
	}
	return u, nil
}

func (u *Unigram) readJSON(data []byte) error {
	if len(data) > maxTokenizer {
		return fmt.Errorf("%d bytes, at most %d", len(data), maxTokenizer)
	}
	var file struct {
		Added        []addedToken `json:"added_tokens"`
		Normalizer   *jsonPart    `json:"normalizer"`
		PreTokenizer *jsonPart    `json:"pre_tokenizer"`
		Model        struct {
			Type         string     `json:"type"`
			Unknown      *int32     `json:"unk_id"`
			Vocab        jsonPieces `json:"vocab"`
			ByteFallback bool       `json:"byte_fallback"`
		} `json:"model"`
	}
	var head struct {
		Model struct {
			Type string `json:"type"`
		} `json:"model"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return err
	}
	if head.Model.Type != "Unigram" {
		return fmt.Errorf("model of type %q, not Unigram: %w", head.Model.Type, compute.ErrUnsupported)
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return err
	}
	u.pieces, u.byteFallback = file.Model.Vocab, file.Model.ByteFallback
	if id := file.Model.Unknown; id == nil || *id < 0 || int(*id) >= len(u.pieces) {
		return errors.New("unk_id is no entry of vocab")
	}
	u.unknown = *file.Model.Unknown
	if err := u.index(); err != nil {
		return err
	}
	if err := u.readAdded(file.Added); err != nil {
		return err
	}
	if u.end, u.pad = u.find("</s>"), u.find("<pad>"); u.end < 0 {
		return errors.New(`no piece "</s>" ends a text`)
	}
	if err := u.readNormalizer(file.Normalizer, 0); err != nil {
		return err
	}
	return u.readPreTokenizer(file.PreTokenizer, 0)
}

func (u *Unigram) find(text string) int32 {
	if n, id := u.lexicon.longest(text); n == len(text) {
		return id
	}
	if n, id := u.fast.added.longest(text); n == len(text) {
		return id
	}
	return -1
}

// readAdded takes the special tokens. Those beyond the vocabulary make it larger.
func (u *Unigram) readAdded(list []addedToken) (err error) {
	added := make(map[int32]addedToken, len(list))
	for _, a := range list {
		switch {
		case a.ID < 0 || int(a.ID) >= maxPieces:
			return fmt.Errorf("added token %q has id %d", a.Content, a.ID)
		case a.SingleWord:
			return fmt.Errorf("added token %q matches single words: %w", a.Content, compute.ErrUnsupported)
		}
		added[a.ID] = a
	}
	for id, a := range added {
		for int(id) >= len(u.pieces) {
			u.pieces = append(u.pieces, piece{kind: unusedPiece})
		}
		if p := &u.pieces[id]; p.kind == unusedPiece {
			p.text = a.Content
		} else if p.text != a.Content {
			return fmt.Errorf("id %d is %q in vocab and the added token %q", id, p.text, a.Content)
		}
	}
	u.fast.strips = added
	u.fast.added, err = newLexicon(u.pieces, func(id int, p *piece) bool {
		_, ok := added[int32(id)]
		return ok
	})
	return err
}

// maxDepth bounds sequences within sequences.
const maxDepth = 8

func (u *Unigram) readNormalizer(p *jsonPart, depth int) error {
	if p == nil {
		return nil
	}
	if depth > maxDepth {
		return errors.New("normalizers lie too deep")
	}
	switch p.Type {
	case "Sequence":
		for i := range p.Normalizers {
			if err := u.readNormalizer(&p.Normalizers[i], depth+1); err != nil {
				return err
			}
		}
	case "Precompiled":
		b, err := base64.StdEncoding.DecodeString(p.Charsmap)
		if err != nil {
			return fmt.Errorf("charsmap: %w", err)
		}
		c, err := newCharsmap(b)
		if err != nil {
			return err
		}
		return u.addStep(c.clusters, max(1, c.widest()))
	case "Strip":
		return u.addStep(func(s string) string { return strip(s, p.StripLeft, p.StripRight) }, 1)
	case "Replace":
		return u.readReplace(p)
	default:
		return fmt.Errorf("normalizer %q: %w", p.Type, compute.ErrUnsupported)
	}
	return nil
}

func (u *Unigram) addStep(step func(string) string, growth int) error {
	f := u.fast
	f.growth *= growth
	if f.growth > maxGrowth || len(f.steps) == maxGrowth {
		return fmt.Errorf("normalizers make more than %d bytes of one", maxGrowth)
	}
	f.steps = append(f.steps, step)
	return nil
}

func (u *Unigram) readReplace(p *jsonPart) error {
	growth := min(len(p.Content), maxGrowth) + 1 // an expression may match nothing, between any two characters
	switch {
	case p.Pattern.String != nil && *p.Pattern.String != "":
		return u.addStep(func(s string) string { return strings.ReplaceAll(s, *p.Pattern.String, p.Content) }, growth)
	case p.Pattern.Regex != nil:
		re, err := regexp.Compile(*p.Pattern.Regex)
		if err != nil {
			return fmt.Errorf("normalizer: %w", err)
		}
		return u.addStep(func(s string) string { return re.ReplaceAllLiteralString(s, p.Content) }, growth)
	}
	return errors.New("normalizer replaces nothing")
}

func (u *Unigram) readPreTokenizer(p *jsonPart, depth int) error {
	if p == nil {
		return nil
	}
	if depth > maxDepth {
		return errors.New("pre-tokenizers lie too deep")
	}
	f := u.fast
	switch p.Type {
	case "Sequence":
		for i := range p.PreTokenizers {
			if err := u.readPreTokenizer(&p.PreTokenizers[i], depth+1); err != nil {
				return err
			}
		}
	case "WhitespaceSplit":
		f.fields = true
	case "Metaspace":
		if p.Replacement != "" {
			f.mark = p.Replacement
		}
		f.scheme, f.unsplit = "always", p.Split != nil && !*p.Split
		if p.Scheme != "" {
			f.scheme = p.Scheme
		} else if p.AddPrefix != nil && !*p.AddPrefix {
			f.scheme = "never"
		}
	default:
		return fmt.Errorf("pre-tokenizer %q: %w", p.Type, compute.ErrUnsupported)
	}
	return nil
}

func strip(s string, left, right bool) string {
	if left {
		s = strings.TrimLeftFunc(s, unicode.IsSpace)
	}
	if right {
		s = strings.TrimRightFunc(s, unicode.IsSpace)
	}
	return s
}

// encodeFast is Encode by the rules of a tokenizer.json.
func (u *Unigram) encodeFast(s string) (ids []int32) {
	if !utf8.ValidString(s) {
		s = string([]rune(s)) // each stray byte becomes U+FFFD, as where the text was read for the other program
	}
	start := 0
	for i := 0; i < len(s); {
		n, id := u.fast.added.longest(s[i:])
		if n == 0 {
			i++
			continue
		}
		before, rest := s[start:i], s[i+n:]
		a := u.fast.strips[id]
		before, rest = strip(before, false, a.Left), strip(rest, a.Right, false)
		ids = append(u.segment(ids, before, start == 0), id)
		i = len(s) - len(rest)
		start = i
	}
	return u.segment(ids, s[start:], start == 0)
}

// segment appends the ids of a text between special tokens.
func (u *Unigram) segment(ids []int32, s string, first bool) []int32 {
	f := u.fast
	if s == "" {
		return ids
	}
	for _, step := range f.steps {
		s = step(s)
	}
	parts := []string{s}
	if f.fields {
		parts = strings.FieldsFunc(s, unicode.IsSpace)
	}
	for i, part := range parts {
		if part == "" {
			continue
		}
		part = strings.ReplaceAll(part, " ", f.mark)
		if (f.scheme == "always" || f.scheme == "first" && first && i == 0) && !strings.HasPrefix(part, f.mark) {
			part = f.mark + part
		}
		for !f.unsplit && part != "" {
			next := strings.Index(part[1:], f.mark) + 1
			if next == 0 {
				break
			}
			ids, part = u.best(ids, part[:next]), part[next:]
		}
		ids = u.best(ids, part)
	}
	return ids
}
