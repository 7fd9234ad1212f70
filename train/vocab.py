"""Closed prompt vocabulary: ids mirror the offsets in maze.h. Run as a script it writes vocab.json."""
import json

WORDS = ["<pad>", "a", "maze", "you", "start", "in", "the", "sky", "is", ":", ",", ".", "walls", "floor", "with", "and"]
DIRECTIONS = ["north-west", "north", "north-east", "west", "centre", "east", "south-west", "south", "south-east"]
# Two synonyms a concept.
COLOURS = [("red", "crimson"), ("orange", "amber"), ("yellow", "golden"), ("green", "emerald"), ("blue", "azure"),
           ("purple", "violet"), ("pink", "rose"), ("white", "pale"), ("grey", "ashen"), ("brown", "umber"),
           ("black", "dark"), ("teal", "turquoise")]
TEXTURES = [("brick", "bricked"), ("stone", "rocky"), ("wood", "wooden"), ("hedge", "leafy"), ("tile", "tiled"),
            ("metal", "steel"), ("plaster", "plastered"), ("striped", "banded")]
FLOORS = [("grass", "grassy"), ("sand", "sandy"), ("checkered", "chequered"), ("slate", "paved"),
          ("plank", "parquet"), ("snow", "snowy")]
SKIES = [("blue-day", "sunny"), ("sunset", "dusky"), ("night", "starry"), ("overcast", "cloudy"), ("dawn", "rosy"),
         ("alien", "eerie")]
LANDMARKS = [("pillar", "column"), ("barrel", "cask"), ("striped-pillar", "striped-column")]
for group in ([(d,) for d in DIRECTIONS], COLOURS, TEXTURES, FLOORS, SKIES, LANDMARKS):
    for concept in group:
        WORDS += list(concept)
assert len(WORDS) == 95
for word, offset in (("north-west", 16), ("red", 25), ("brick", 49), ("grass", 65), ("blue-day", 77), ("pillar", 89)):
    assert WORDS.index(word) == offset


def text(ids):
    """Token ids -> prompt."""
    return " ".join(WORDS[i] for i in ids if i)


def ids(prompt, n=128):
    """Prompt, words separated by spaces -> n token ids, padded with 0."""
    r = [WORDS.index(word) for word in prompt.split()]
    return r + [0] * (n - len(r))


if __name__ == "__main__":
    with open("vocab.json", "w") as f:
        json.dump(WORDS, f)
