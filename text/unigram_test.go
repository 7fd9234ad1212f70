package text

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"longtake/compute"
)

// unzipped reads a file of testdata/unigram.
func unzipped(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata/unigram", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func spiece(t testing.TB, name string) *Unigram {
	t.Helper()
	u, err := ReadSpiece(unzipped(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// tokenizerJSON puts the charsmap, which the stored file leaves out, back into its place.
func tokenizerJSON(t testing.TB) []byte {
	t.Helper()
	var b []byte
	err := eachField(unzipped(t, "wan.model.gz"), func(f field) error {
		if f.id != 3 {
			return nil
		}
		return eachField(f.data, func(f field) error {
			if f.id == 2 {
				b = f.data
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(unzipped(t, "tokenizer.json.gz"), []byte("@charsmap"), []byte(base64.StdEncoding.EncodeToString(b)), 1)
}

// line is a text with its ids by sentencepiece with wan.model, with plain.model, and by tokenizers (nil: not encoded).
type line struct {
	text             string
	wan, plain, fast []int32
}

func corpus(t testing.TB) []line {
	t.Helper()
	b, err := os.ReadFile("testdata/unigram/corpus.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var out []line
	for row := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(row, "\n"), "\t")
		text, err := strconv.Unquote(f[0])
		if err != nil || len(f) != 4 {
			t.Fatalf("line %d of the corpus: %v", len(out)+1, err)
		}
		l := line{text: text, wan: numbers(t, f[1]), plain: numbers(t, f[2])}
		if f[3] != "-" {
			l.fast = numbers(t, f[3])
		}
		out = append(out, l)
	}
	return out
}

func numbers(t testing.TB, s string) []int32 {
	t.Helper()
	ids := []int32{}
	for _, w := range strings.Fields(s) {
		n, err := strconv.Atoi(w)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, int32(n))
	}
	return ids
}

func TestUnigramAgreesWithSentencepiece(t *testing.T) {
	lines := corpus(t)
	wan, plain := spiece(t, "wan.model.gz"), spiece(t, "plain.model.gz")
	for _, l := range lines {
		if got := wan.Encode(l.text); !slices.Equal(got, l.wan) {
			t.Errorf("wan.model, %q:\n got %v %q\nwant %v %q", l.text, got, wan.spell(got), l.wan, wan.spell(l.wan))
		}
		if got := plain.Encode(l.text); !slices.Equal(got, l.plain) {
			t.Errorf("plain.model, %q:\n got %v %q\nwant %v %q", l.text, got, plain.spell(got), l.plain, plain.spell(l.plain))
		}
	}
	if len(lines) < 380 {
		t.Errorf("the corpus has only %d lines", len(lines))
	}
}

func (u *Unigram) spell(ids []int32) (out []string) {
	for _, id := range ids {
		out = append(out, u.Piece(id))
	}
	return out
}

func TestUnigramAgreesWithTokenizers(t *testing.T) {
	u, err := ReadTokenizerJSON(tokenizerJSON(t))
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, l := range corpus(t) {
		if l.fast == nil {
			continue
		}
		lines++
		if got := u.Encode(l.text); !slices.Equal(got, l.fast) {
			t.Errorf("%q:\n got %v %q\nwant %v %q", l.text, got, u.spell(got), l.fast, u.spell(l.fast))
		}
	}
	if lines < 300 {
		t.Errorf("the corpus has only %d lines of valid text", lines)
	}
}

func TestPromptsKeepTheirEnd(t *testing.T) {
	fast, err := ReadTokenizerJSON(tokenizerJSON(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []*Unigram{spiece(t, "wan.model.gz"), fast} {
		if u.Pad() != 0 || u.End() != 1 || u.Unknown() != 2 || u.Pieces() != 2600 {
			t.Errorf("pad %d, end %d, unknown %d of %d pieces", u.Pad(), u.End(), u.Unknown(), u.Pieces())
		}
		whole := u.Encode(strings.Repeat("a cat on a mat ", 300))
		for _, c := range []struct {
			prompt string
			limit  int
			want   []int32
		}{
			{"", 512, []int32{1}},
			{"a cat", 512, append(u.Encode("a cat"), 1)},
			{"a cat", 1, []int32{1}},
			{strings.Repeat("a cat on a mat ", 300), 512, append(slices.Clone(whole[:511]), 1)},
		} {
			if got := u.EncodePrompt(c.prompt, c.limit); !slices.Equal(got, c.want) {
				t.Errorf("EncodePrompt(%.20q, %d) = %v, want %v", c.prompt, c.limit, got, c.want)
			}
		}
	}
}

// message writes protobuf fields: strings as length-delimited, ints as varints, float32 as fixed.
func message(fields ...any) []byte {
	var b []byte
	for i := 0; i < len(fields); i += 2 {
		id := uint64(fields[i].(int))
		switch v := fields[i+1].(type) {
		case int:
			b = binary.AppendUvarint(binary.AppendUvarint(b, id<<3), uint64(v))
		case float32:
			b = binary.LittleEndian.AppendUint32(binary.AppendUvarint(b, id<<3|5), math.Float32bits(v))
		case string:
			b = append(binary.AppendUvarint(binary.AppendUvarint(b, id<<3|2), uint64(len(v))), v...)
		case []byte:
			b = append(binary.AppendUvarint(binary.AppendUvarint(b, id<<3|2), uint64(len(v))), v...)
		}
	}
	return b
}

func TestDamagedModelsAreErrors(t *testing.T) {
	unknown, end := message(1, "<unk>", 3, 2), message(1, "</s>", 3, 3)
	good := message(1, unknown, 1, end, 1, message(1, "a", 2, float32(-1)))
	if _, err := ReadSpiece(good); err != nil {
		t.Fatal(err)
	}
	nan := float32(math.NaN())
	for _, c := range []struct {
		what string
		file []byte
		want string
	}{
		{"nothing", nil, "unknown one"},
		{"cut", good[:len(good)-2], "ends inside"},
		{"a group", []byte{3<<3 | 3}, "wire type 3"},
		{"an endless number", bytes.Repeat([]byte{0xff}, 20), "ends inside"},
		{"a length beyond the file", []byte{1<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, "ends inside"},
		{"no end", message(1, unknown), "ends a text"},
		{"two unknown", message(1, unknown, 1, unknown, 1, end), "both the unknown"},
		{"an empty piece", message(1, unknown, 1, end, 1, message(2, float32(1))), "piece 2 is empty"},
		{"a piece twice", message(1, unknown, 1, end, 1, message(1, "a"), 1, message(1, "a")), "both"},
		{"a long piece", message(1, unknown, 1, end, 1, message(1, strings.Repeat("a", 513))), "513 bytes"},
		{"a score that is no number", message(1, unknown, 1, end, 1, message(1, "a", 2, nan)), "score NaN"},
		{"an unknown type", message(1, message(1, "a", 3, 9)), "unknown type 9"},
		{"bytes missing", message(1, unknown, 1, end, 2, message(35, 1)), "no piece for byte 0x00"},
		{"a byte that is none", message(1, unknown, 1, end, 1, message(1, "<0xG0>", 3, 6)), "stands for a byte"},
		{"a BPE model", message(2, message(3, 2)), "not unigram"},
		{"a charsmap of nothing", message(3, message(2, "abc")), "shorter"},
		{"a charsmap beyond its end", message(3, message(2, "\xff\xff\xff\x7f12345678")), "double array"},
		{"an endless string", message(3, message(2, "\x04\x00\x00\x00\x00\x00\x00\x00abc")), "does not end"},
		{"a very long rule", message(3, message(2, "\x04\x00\x00\x00\x00\x00\x00\x00"+strings.Repeat("a", 300)+"\x00")), "300 bytes"},
		{"too many pieces", bytes.Repeat([]byte{1<<3 | 2, 0}, maxPieces+1), "more than"},
	} {
		if _, err := ReadSpiece(c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.what, err, c.want)
		}
	}
	if _, err := ReadSpiece(message(2, message(3, 2))); !errors.Is(err, compute.ErrUnsupported) {
		t.Errorf("a BPE model: %v", err)
	}
}

func TestDamagedTokenizersAreErrors(t *testing.T) {
	file := func(normalizer, pre, added, vocab string) string {
		return fmt.Sprintf(`{"normalizer":%s,"pre_tokenizer":%s,"added_tokens":%s,"model":{"type":"Unigram","unk_id":0,"vocab":%s}}`, normalizer, pre, added, vocab)
	}
	const vocab = `[["<unk>",0],["</s>",0],["a",-1]]`
	if _, err := ReadTokenizerJSON([]byte(file("null", "null", "[]", vocab))); err != nil {
		t.Fatal(err)
	}
	deep := strings.Repeat(`{"type":"Sequence","normalizers":[`, 20) + strings.Repeat("]}", 20)
	replace := `{"type":"Replace","pattern":{"String":"a"},"content":"` + strings.Repeat("a", 90) + `"}`
	for _, c := range []struct{ what, file, want string }{
		{"no JSON", "{", "unexpected end"},
		{"another model", `{"model":{"type":"BPE"}}`, `"BPE"`},
		{"no unknown", `{"model":{"type":"Unigram","vocab":[]}}`, "unk_id"},
		{"unknown outside", `{"model":{"type":"Unigram","unk_id":7,"vocab":[]}}`, "unk_id"},
		{"a vocabulary of words", file("null", "null", "[]", `["a"]`), "entry 0"},
		{"a vocabulary by name", file("null", "null", "[]", `{"a":1}`), "no list"},
		{"three in an entry", file("null", "null", "[]", `[["a",1,2]]`), "entry 0"},
		{"a huge score", file("null", "null", "[]", `[["a",1e999]]`), "entry 0"},
		{"no end", file("null", "null", "[]", `[["a",1]]`), "ends a text"},
		{"a token far away", file("null", "null", `[{"id":1073741824,"content":"x"}]`, vocab), "1073741824"},
		{"a token of another text", file("null", "null", `[{"id":2,"content":"x"}]`, vocab), "id 2"},
		{"single words", file("null", "null", `[{"id":3,"content":"x","single_word":true}]`, vocab), "not supported"},
		{"another normaliser", file(`{"type":"NFKC"}`, "null", "[]", vocab), `"NFKC"`},
		{"another pre-tokenizer", file("null", `{"type":"ByteLevel"}`, "[]", vocab), `"ByteLevel"`},
		{"normalisers too deep", file(deep, "null", "[]", vocab), "too deep"},
		{"explosions", file(`{"type":"Sequence","normalizers":[`+replace+","+replace+`]}`, "null", "[]", vocab), "of one"},
		{"an expression that is none", file(`{"type":"Replace","pattern":{"Regex":"("},"content":""}`, "null", "[]", vocab), "missing"},
		{"a charsmap that is none", file(`{"type":"Precompiled","precompiled_charsmap":"%"}`, "null", "[]", vocab), "base64"},
	} {
		if _, err := ReadTokenizerJSON([]byte(c.file)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.what, err, c.want)
		}
	}
}

// Tokenizers of other makers' settings.
func TestTokenizerSettings(t *testing.T) {
	const head = `{"added_tokens":[{"id":4,"content":"<x>","lstrip":true,"rstrip":true}],"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["</s>",0],["a",-1],["▁",-2]]},`
	for _, c := range []struct {
		what, rest, text string
		want             []int32
	}{
		{"words, old prefix", `"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"WhitespaceSplit"},{"type":"Metaspace","replacement":"▁","add_prefix_space":true}]}`,
			" a\n a", []int32{3, 2, 3, 2}},
		{"no prefix", `"pre_tokenizer":{"type":"Metaspace","replacement":"▁","add_prefix_space":false}`, "a a", []int32{2, 3, 2}},
		{"prefix of the first part", `"pre_tokenizer":{"type":"Metaspace","prepend_scheme":"first","split":false}`, "a <x> a", []int32{3, 2, 4, 2}},
		{"unknown characters are one", `"pre_tokenizer":null`, "aबिa", []int32{2, 0, 2}},
		{"replacement of texts", `"normalizer":{"type":"Replace","pattern":{"String":"bb"},"content":"a"}`, "bbbb", []int32{2, 2}},
		{"strip", `"normalizer":{"type":"Strip","strip_left":true,"strip_right":false}`, "\t a", []int32{2}},
	} {
		u, err := ReadTokenizerJSON([]byte(head + c.rest + "}"))
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if got := u.Encode(c.text); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

// FuzzSpiece reads anything as a model, and uses what it could read.
func FuzzSpiece(f *testing.F) {
	f.Add([]byte{}, "a")
	f.Add(unzipped(f, "plain.model.gz"), "a b")
	bytesOfAll := message(1, message(1, "<unk>", 3, 2), 1, message(1, "</s>", 3, 3), 1, message(1, "a", 2, float32(-1)), 1, message(1, "aa", 3, 4))
	f.Add(append(bytesOfAll, message(3, message(2, "\x10\x00\x00\x00\x00\x04\x00\x00a\x05\x00\x00\x00\x00\x00\x80zzzzA\x00"))...), "aaa b\xff")
	f.Add([]byte(`{"normalizer":{"type":"Replace","pattern":{"Regex":" {2,}"},"content":"▁"},"pre_tokenizer":{"type":"Metaspace","prepend_scheme":"always"},`+
		`"added_tokens":[{"id":1,"content":"</s>"}],"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["</s>",0],["a",-1]]}}`), "a  </s>b")
	f.Fuzz(func(t *testing.T, file []byte, text string) {
		for _, read := range []func([]byte) (*Unigram, error){ReadSpiece, ReadTokenizerJSON} {
			u, err := read(file)
			if err != nil {
				continue
			}
			for _, id := range u.EncodePrompt(text, 512) {
				if id < 0 || int(id) >= u.Pieces() {
					t.Fatalf("id %d of %d pieces", id, u.Pieces())
				}
			}
		}
	})
}

// FuzzTokenize encodes anything with good models: the ids are in range, and the pieces spell the normalised text.
func FuzzTokenize(f *testing.F) {
	for _, l := range corpus(f)[:40] {
		f.Add(l.text)
	}
	wan, plain := spiece(f, "wan.model.gz"), spiece(f, "plain.model.gz")
	fast, err := ReadTokenizerJSON(tokenizerJSON(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, u := range []*Unigram{wan, plain, fast} {
			for _, id := range u.Encode(Clean(text)) {
				if id < 0 || int(id) >= u.Pieces() {
					t.Fatalf("id %d of %d pieces", id, u.Pieces())
				}
			}
		}
		var spelled []byte
		for _, id := range wan.Encode(text) {
			if b, ok := byteOf(wan.Piece(id)); ok {
				spelled = append(spelled, b)
			} else {
				spelled = append(spelled, wan.Piece(id)...)
			}
		}
		if want := wan.normaliser.text(text); string(spelled) != want {
			t.Fatalf("pieces of %q spell %q, want %q", text, spelled, want)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	u, lines, size := spiece(b, "wan.model.gz"), corpus(b), 0
	for _, l := range lines {
		size += len(l.text)
	}
	b.SetBytes(int64(size))
	for b.Loop() {
		for _, l := range lines {
			u.Encode(l.text)
		}
	}
}
