package text

import (
	"testing"
	"unicode/utf8"
)

func TestCleanRepairsPrompts(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"white space", " \t a\u00a0cat \r\n\u3000 on\x0ba\u2028mat\u2029 ", "a cat ona mat"},
		{"references, twice", "Tom &amp;amp; Jerry &lt;3 &#39;x&#39; &eacute;", "Tom & Jerry <3 'x' é"},
		{"references three deep without a tag", "&amp;amp;lt;b&gt;", "<b>"},
		{"references three deep with a tag", "< &amp;amp;lt;", "< &lt;"},
		{"references four deep with a tag", "< &amp;amp;amp;lt;", "< &amp;lt;"},
		{"quotes", "“It’s ‘fine’”, he said", `"It's 'fine'", he said`},
		{"a quote by reference", "it&rsquo;s", "it's"},
		{"a quote by reference beside a tag stays", "<b> it&rsquo;s", "<b> it’s"},
		{"ligatures", "ﬁne ŉ Ĳssel ﬅ", "fine 'n IJssel ſt"},
		{"full width", "Ｆｕｌｌ　ｗｉｄｔｈ！", "Full width!"},
		{"controls", "a\x00b\x07c\x7fd\ufeffe\ufffcf", "abcdef"},
		{"terminal escapes", "\x1b[31;1mred\x1b[0m", "red"},
		{"C1 controls", "price \u0080 5 \u0085 ok \u0081", "price € 5 … ok \u0081"},
		{"letters read as windows-1252", "crÃ¨me brÃ»lÃ©e", "crème brûlée"},
		{"read so twice", "crÃƒÂ¨me", "crème"},
		{"punctuation read so", "itâ€™s", "it's"},
		{"an emoji read so", "ðŸ˜€", "😀"},
		{"Chinese read so", "ä¸\u00adæ–‡", "中文"},
		{"Latin text that could be UTF-8", "CAFÉ®", "CAFÉ®"},
		{"Latin text", "déjà vu, naïve Ærø", "déjà vu, naïve Ærø"},
		{"stray bytes", "a\xff\xfeb", "a\ufffd\ufffdb"},
		{"nothing", " \n ", ""},
	} {
		if got := Clean(c.in); got != c.want {
			t.Errorf("%s: Clean(%q) = %q, want %q", c.name, c.in, got, c.want)
		}
	}
}

func TestCleanGivesUTF8(t *testing.T) {
	for _, l := range corpus(t) {
		once := Clean(l.text)
		if !utf8.ValidString(once) {
			t.Errorf("Clean(%q) = %q is not UTF-8", l.text, once)
		}
	}
}
