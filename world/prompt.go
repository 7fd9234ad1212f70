package world

// describe writes the prompt of a player who starts in a region: where that is, the
// sky, and a clause for every room, the starting room first. Which synonyms it uses,
// and whether the other clauses are shuffled, is drawn from r.
func (w *World) describe(start Region, r *source) []int {
	either := func(first, concept int) int { return first + 2*concept + r.intn(2) }
	ids := make([]int, 0, PromptTokens)
	ids = append(ids, tokenYou, tokenStart, tokenIn, tokenThe, firstRegion+int(start), tokenStop)
	ids = append(ids, tokenThe, tokenSky, tokenIs, either(firstSky, int(w.sky)), tokenStop)
	for _, region := range clauseOrder(start, r) {
		room := w.rooms[region]
		ids = append(ids, firstRegion+region, tokenColon)
		ids = append(ids, either(firstColour, int(room.Colour)))
		ids = append(ids, either(firstWall, int(room.Texture)), tokenWalls, tokenComma)
		ids = append(ids, either(firstFloor, int(room.Floor)), tokenFloor)
		for _, l := range w.landmarks {
			if int(l.Region) == region {
				ids = append(ids, tokenComma, tokenA, either(firstColour, int(l.Colour)))
				ids = append(ids, either(firstShape, int(l.Shape)))
			}
		}
		ids = append(ids, tokenStop)
	}
	return ids
}

// clauseOrder lists the regions as the prompt names them: shuffled in half of the
// prompts, with the starting region moved to the front.
func clauseOrder(start Region, r *source) []int {
	order := make([]int, Regions)
	for i := range order {
		order[i] = i
	}
	if r.float() < 0.5 {
		r.shuffle(order)
	}
	for i, region := range order {
		if region == int(start) {
			copy(order[1:i+1], order[:i])
			order[0] = region
			break
		}
	}
	return order
}
