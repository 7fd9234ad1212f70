package world

import (
	"fmt"
	"strings"
)

// PromptTokens is the length to which the embedded model pads prompts.
const PromptTokens = 128

// Pad is the token that fills a prompt up to [PromptTokens].
const Pad = 0

// The words of the vocabulary, in the order of their token ids. Where a concept has
// two words, they are synonyms.
var (
	plainWords   = [...]string{"<pad>", "a", "maze", "you", "start", "in", "the", "sky", "is", ":", ",", ".", "walls", "floor", "with", "and"}
	directions   = [Regions]string{"north-west", "north", "north-east", "west", "centre", "east", "south-west", "south", "south-east"}
	colourWords  = [numColours][2]string{{"red", "crimson"}, {"orange", "amber"}, {"yellow", "golden"}, {"green", "emerald"}, {"blue", "azure"}, {"purple", "violet"}, {"pink", "rose"}, {"white", "pale"}, {"grey", "ashen"}, {"brown", "umber"}, {"black", "dark"}, {"teal", "turquoise"}}
	textureWords = [numTextures][2]string{{"brick", "bricked"}, {"stone", "rocky"}, {"wood", "wooden"}, {"hedge", "leafy"}, {"tile", "tiled"}, {"metal", "steel"}, {"plaster", "plastered"}, {"striped", "banded"}}
	floorWords   = [numFloors][2]string{{"grass", "grassy"}, {"sand", "sandy"}, {"checkered", "chequered"}, {"slate", "paved"}, {"plank", "parquet"}, {"snow", "snowy"}}
	skyWords     = [numSkies][2]string{{"blue-day", "sunny"}, {"sunset", "dusky"}, {"night", "starry"}, {"overcast", "cloudy"}, {"dawn", "rosy"}, {"alien", "eerie"}}
	shapeWords   = [numShapes][2]string{{"pillar", "column"}, {"barrel", "cask"}, {"striped-pillar", "striped-column"}}
)

// Token ids of the plain words that prompts use, and where each group of words begins.
const (
	tokenA      = 1
	tokenYou    = 3
	tokenStart  = 4
	tokenIn     = 5
	tokenThe    = 6
	tokenSky    = 7
	tokenIs     = 8
	tokenColon  = 9
	tokenComma  = 10
	tokenStop   = 11
	tokenWalls  = 12
	tokenFloor  = 13
	firstRegion = 16
	firstColour = firstRegion + Regions
	firstWall   = firstColour + 2*numColours
	firstFloor  = firstWall + 2*int(numTextures)
	firstSky    = firstFloor + 2*int(numFloors)
	firstShape  = firstSky + 2*int(numSkies)
	numWords    = firstShape + 2*int(numShapes)
)

var (
	vocabulary = listWords()
	tokens     = indexWords(vocabulary)
)

func listWords() []string {
	words := append(plainWords[:], directions[:]...)
	for _, group := range [][][2]string{colourWords[:], textureWords[:], floorWords[:], skyWords[:], shapeWords[:]} {
		for _, synonyms := range group {
			words = append(words, synonyms[:]...)
		}
	}
	return words
}

func indexWords(words []string) map[string]int {
	index := make(map[string]int, len(words))
	for id, w := range words {
		if id != Pad {
			index[w] = id
		}
	}
	return index
}

// Vocabulary returns the 95 words that prompts are made of; a word's index is its
// token id. Word 0 is the padding token, which never stands in a prompt's text.
func Vocabulary() []string { return append([]string(nil), vocabulary...) }

// Encode turns a prompt into token ids, without padding. Case does not matter, and
// the marks : , . need no space before them. A word outside the vocabulary, or more
// than [PromptTokens] tokens, is an error.
func Encode(prompt string) ([]int, error) {
	spaced := strings.NewReplacer(":", " : ", ",", " , ", ".", " . ").Replace(strings.ToLower(prompt))
	fields := strings.Fields(spaced)
	if len(fields) > PromptTokens {
		return nil, fmt.Errorf("prompt has %d words, the model reads at most %d", len(fields), PromptTokens)
	}
	ids := make([]int, len(fields))
	for i, w := range fields {
		id, ok := tokens[w]
		if !ok {
			return nil, fmt.Errorf("prompt word %d, %q, is not one of the %d words the model knows", i+1, w, len(tokens))
		}
		ids[i] = id
	}
	return ids, nil
}

// Decode turns token ids into text, leaving padding out. An id outside the
// vocabulary is an error.
func Decode(ids []int) (string, error) {
	words := make([]string, 0, len(ids))
	for i, id := range ids {
		if id < 0 || id >= len(vocabulary) {
			return "", fmt.Errorf("token %d has id %d, the vocabulary ends at %d", i, id, len(vocabulary)-1)
		}
		if id != Pad {
			words = append(words, vocabulary[id])
		}
	}
	return strings.Join(words, " "), nil
}

func word(words []string, i int) string {
	if i < len(words) {
		return words[i]
	}
	return fmt.Sprintf("unknown(%d)", i)
}

func firstWord(words [][2]string, i int) string {
	if i < len(words) {
		return words[i][0]
	}
	return fmt.Sprintf("unknown(%d)", i)
}
