// Package world is a small deterministic first-person maze: the ground truth
// that trains and judges the embedded model.
//
// What enters: a 32-bit seed, and actions (from a script, see [ParseActions], or
// from the walking policy, see [AutoActions]). What leaves: a [World], prompts over
// a closed vocabulary of 95 words, poses, and RGB frames of any size.
//
// A world is a 16 by 16 grid of cells in nine rooms, each with its own wall texture,
// colour and floor, under one of six skies with a panorama fixed to the compass.
// Headings are 30 steps of 12 degrees, 0 is north and they grow to the right; x grows
// to the east and y to the south, in cells. A step is 0.22 cells; walls and landmarks
// stop the player, who slides along them.
//
// The same seed gives the same maze, prompt, poses and actions on every platform:
// all of them are computed in float32 with each product rounded before it is added.
// They equal those of the simulator that the model was trained on (see
// testdata/golden), and frames equal its frames up to rounding.
package world
