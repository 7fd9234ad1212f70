package world

// far marks the cells that a route cannot use.
const far = 255

// The order in which neighbouring cells are tried: east, west, south, north.
var neighbours = [4][2]int{{1, 0}, {-1, 0}, {0, 1}, {0, -1}}

// A player decides what to do next: it follows a route to a place, plays out a short
// plan, or thinks of something new to do.
type player struct {
	w       *World
	r       *source
	poses   []Pose
	actions []Action

	plan     []Action          // still to be done
	walking  bool              // along the route
	route    [Size * Size]byte // steps from each cell to the place to go to
	patience int               // frames left for the route
	stuck    int               // how often walls stopped the player of late
	lazy     f32               // how readily it walks on while turning
	exact    bool              // the plan retraces steps: nothing else may be done in between
}

func newPlayer(w *World, r *source, start Pose, frames int) *player {
	p := &player{w: w, r: r, lazy: r.float()}
	p.poses = append(make([]Pose, 0, frames), start)
	p.actions = append(make([]Action, 0, frames), Noop)
	return p
}

func (p *player) pose() Pose { return p.poses[len(p.poses)-1] }

// act does an action.
func (p *player) act(a Action) {
	from := p.pose()
	to := p.w.Step(from, a)
	switch {
	case (a == Forward || a > TurnRight) && abs(from.X-to.X)+abs(from.Y-to.Y) < 0.02:
		p.stuck++
	case a != Noop:
		p.stuck = max(0, p.stuck-1)
	}
	p.poses = append(p.poses, to)
	p.actions = append(p.actions, a)
}

// choose returns the next action. A player who only wanders always walks to some place.
func (p *player) choose(wander bool) Action {
	if !p.walking && len(p.plan) == 0 {
		p.think(wander)
	}
	if p.walking {
		return p.follow()
	}
	if len(p.plan) == 0 {
		return Noop
	}
	a := p.plan[0]
	p.plan = p.plan[1:]
	return a
}

// think chooses the next behaviour. The order of the draws is part of what a seed means.
func (p *player) think(wander bool) {
	r, t := p.r, len(p.poses)
	mood := r.float()
	if wander {
		mood = f32(mood * 0.48)
	}
	p.plan = p.plan[:0]
	switch {
	case mood < 0.48 || mood < 0.58 && t < 6:
		if x, y, ok := p.somewhere(); ok {
			p.head(x, y, 14)
		}
	case mood < 0.63: // back to a place seen before
		place := p.poses[r.intn(t)]
		p.head(int(place.X), int(place.Y), 24)
	case mood < 0.71:
		p.lookAround()
	case mood < 0.80:
		p.glance()
	case mood < 0.88:
		p.thereAndBack(3 + r.intn(12))
	case mood < 0.93:
		p.do(2+r.intn(8), Noop)
	case mood < 0.96:
		p.do(2+r.intn(8), Back)
	default: // jitter
		for range 4 + r.intn(10) {
			p.do(1, Action(r.intn(int(StrafeLeft))))
		}
	}
}

func (p *player) lookAround() {
	n := 8 + p.r.intn(28)
	p.do(n, p.eitherTurn())
}

// glance turns to a side, pauses and turns back.
func (p *player) glance() {
	n := 4 + p.r.intn(16)
	turn := p.eitherTurn()
	pause := p.r.intn(4)
	p.do(n, turn)
	p.do(pause, Noop)
	p.do(n, turn.opposite())
}

const halfTurn = Headings / 2

// thereAndBack walks n steps straight on, then backs up, or turns round and returns, or
// does that and turns round again.
func (p *player) thereAndBack(n int) {
	p.do(n, Forward)
	how := p.r.intn(3)
	if how == 0 {
		p.do(n, Back)
		return
	}
	turn := p.eitherTurn()
	p.do(halfTurn, turn)
	p.do(n, Forward)
	if how == 2 {
		p.do(halfTurn, turn)
	}
}

func (p *player) do(n int, a Action) {
	for range n {
		p.plan = append(p.plan, a)
	}
}

func (p *player) eitherTurn() Action { return TurnLeft + Action(p.r.intn(2)) }

// somewhere looks for a free cell at most seven cells away, 60 times.
func (p *player) somewhere() (x, y int, ok bool) {
	at := p.pose()
	for tries := 1; ; tries++ {
		x = 1 + p.r.intn(Size-2)
		y = 1 + p.r.intn(Size-2)
		away := max(x-int(at.X), int(at.X)-x) + max(y-int(at.Y), int(at.Y)-y)
		if p.w.free(x, y) && away <= 7 || tries >= 60 {
			return x, y, tries < 60
		}
	}
}

// head sets out for a cell unless it is here, out of reach, or limit steps away or more.
func (p *player) head(x, y, limit int) {
	p.w.measure(x, y, &p.route)
	at := p.pose()
	steps := int(p.route[int(at.Y)*Size+int(at.X)])
	if steps > 0 && steps < limit {
		p.walking = true
		p.patience = 8 + steps*9
		p.stuck = 0
	}
}

// measure writes how many steps each cell is away from (x, y), or far.
func (w *World) measure(x, y int, route *[Size * Size]byte) {
	for i := range route {
		route[i] = far
	}
	route[y*Size+x] = 0
	var queue [Size * Size]int // every cell enters once at most
	queue[0] = y*Size + x
	for head, tail := 0, 1; head < tail; head++ {
		at := queue[head]
		for _, d := range neighbours {
			nx, ny := at%Size+d[0], at/Size+d[1]
			if !w.free(nx, ny) {
				continue
			}
			if next := ny*Size + nx; route[next] == far {
				route[next] = route[at] + 1
				queue[tail] = next
				tail++
			}
		}
	}
}

// follow takes one action along the route, towards the middle of the next cell; at
// the end, or when patience runs out, it stops and may turn.
func (p *player) follow() Action {
	at := p.pose()
	cellX, cellY := int(at.X), int(at.Y)
	steps := p.route[cellY*Size+cellX]
	arrived := steps == 0 || steps == far
	if !arrived {
		p.patience--
	}
	if arrived || p.patience <= 0 || p.stuck > 5 {
		p.walking = false
		if p.r.float() < 0.7 {
			return p.eitherTurn()
		}
		return Noop
	}
	nextX, nextY := cellX, cellY
	for _, d := range neighbours {
		x, y := cellX+d[0], cellY+d[1]
		if !p.w.Solid(x, y) && p.route[y*Size+x] < steps {
			steps = p.route[y*Size+x]
			nextX, nextY = x, y
		}
	}
	return p.steer(at, f32(nextX)+0.5, f32(nextY)+0.5)
}

// steer turns towards a point, walks while turning, or walks, by how far off it lies.
func (p *player) steer(at Pose, x, y f32) Action {
	const perRadian = Headings / tau
	want := f32(atan2(x-at.X, -(y-at.Y)) * perRadian)
	off := want - f32(at.Heading)
	for off > Headings/2 {
		off -= Headings
	}
	for off < -Headings/2 {
		off += Headings
	}
	turn, curve := TurnRight, ForwardRight
	if off < 0 {
		turn, curve = TurnLeft, ForwardLeft
	}
	switch {
	case abs(off) > 2.2:
		return turn
	case abs(off) <= 0.7:
		return Forward
	case p.r.float() < f32(0.3*p.lazy):
		return turn
	}
	return curve
}
