package text_test

import (
	"fmt"

	"longtake/rollout"
	"longtake/text"
)

// The engine takes prompts through this interface.
var _ rollout.Prompter = (*text.Prompter)(nil)

func ExampleClean() {
	fmt.Println(text.Clean(" A “ﬁne” cafÃ© &amp;amp;\n a　ｃａｔ "))
	// Output: A "fine" cafÃ© & a cat
}
