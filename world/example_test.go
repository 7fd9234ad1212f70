package world_test

import (
	"fmt"

	"longtake/world"
)

func ExampleNewEpisode() {
	e, err := world.NewEpisode(4, 40, world.Mixed, 0)
	if err != nil {
		panic(err)
	}
	fmt.Print(e.World)
	fmt.Println(e.Prompt()[:73], "...")
	fmt.Println(world.FormatActions(e.Actions))
	frame := make([]byte, 64*64*3)
	e.World.Render(frame, e.Poses[39], 64, 64)
	// Output:
	// ################
	// #.....#...#....#
	// #.....#.....o..#
	// #...........#..#
	// #.....#........#
	// ##....##..##.###
	// #.....#...#....#
	// #.....#........#
	// #.....#.......o#
	// #####.###.###..#
	// #.....#...#....#
	// #.....#...#....#
	// #.....#...#..#.#
	// #..............#
	// #.o...#...#....#
	// ################
	// you start in the north-east . the sky is alien . north-east : blue bricke ...
	// . a7 q w q a4 q w q w q w3 d4 e2 w a2 q2 w a w4
}

func ExampleParseActions() {
	actions, err := world.ParseActions("w2 (d3 w)x2  # two corners")
	fmt.Println(world.FormatActions(actions), err)
	_, err = world.ParseActions("w20 f8")
	fmt.Println(err)
	// Output:
	// w2 d3 w d3 w <nil>
	// line 1, column 5: expected an action (w s a d q e z c .) or a group "(", found "f"
	//     w20 f8
	//         ^
}
