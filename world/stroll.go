package world

// stroll returns the next action of a player who knows how to step aside, often retraces its
// steps, and keeps off the walls. One who only wanders always walks to some place, with
// simple actions, and never touches a wall.
func (p *player) stroll(wander bool) Action {
	if !p.walking && len(p.plan) == 0 {
		p.muse(wander)
	}
	a := Noop
	if p.walking {
		a = p.follow()
		if p.walking && !wander && p.r.float() < 0.10 {
			if aside := StrafeLeft + Action(p.r.intn(2)); !p.w.hits(p.pose(), aside) {
				a = aside
			}
		}
	} else if len(p.plan) > 0 {
		a, p.plan = p.plan[0], p.plan[1:]
	}
	if len(p.plan) == 0 {
		p.exact = false
	}
	if wander && a > TurnRight {
		a = Forward
	}
	if p.exact || !p.w.hits(p.pose(), a) || !wander && p.r.float() >= 0.9 {
		return a
	}
	return p.evade(a)
}

// evade turns away from what is in the way of an action.
func (p *player) evade(a Action) Action {
	if p.walking && (a == ForwardLeft || a == ForwardRight) {
		turn := TurnLeft
		if a == ForwardRight {
			turn = TurnRight
		}
		if at := p.pose(); !p.w.hits(Pose{at.X, at.Y, turned(at.Heading, turn.Turn())}, Forward) {
			return turn
		}
	}
	p.walking = false
	p.plan = p.plan[:0]
	n := 3 + p.r.intn(5)
	p.do(n, p.eitherTurn())
	a, p.plan = p.plan[0], p.plan[1:]
	return a
}

// muse chooses the next behaviour of a stroll. The order of the draws is part of what a
// seed means.
func (p *player) muse(wander bool) {
	r, t := p.r, len(p.poses)
	mood := r.float()
	if wander {
		mood = f32(mood * 0.30)
	}
	p.plan = p.plan[:0]
	switch {
	case mood < 0.30 || mood < 0.5 && t < 6:
		if x, y, ok := p.somewhere(); ok {
			p.head(x, y, 14)
		}
	case mood < 0.38: // back to a place seen before
		place := p.poses[r.intn(t)]
		p.head(int(place.X), int(place.Y), 24)
	case mood < 0.42:
		p.lookAround()
	case mood < 0.46:
		p.glance()
	case mood < 0.52: // as far as the way is free
		at, free := p.pose(), 0
		for n := 3 + r.intn(12); free < n && !p.w.hits(at, Forward); free++ {
			at = p.w.Step(at, Forward)
		}
		p.thereAndBack(free)
	case mood < 0.545:
		p.do(2+r.intn(8), Noop)
	case mood < 0.645:
		n := 5 + r.intn(16)
		p.do(n, Back)
		if r.float() < 0.4 {
			p.do(n, Forward)
		}
	case mood < 0.81:
		n := 4 + r.intn(14)
		aside := StrafeLeft + Action(r.intn(2))
		p.do(n, aside)
		if r.float() < 0.5 {
			p.do(n, aside.opposite())
		}
	case mood < 0.84: // jitter
		for range 4 + r.intn(10) {
			p.do(1, Action(r.intn(int(StrafeRight)+1)))
		}
	default:
		p.retrace()
	}
}

// retrace plans to undo the last actions, walking backwards, or after turning round.
func (p *player) retrace() {
	const longest = 140
	t := len(p.poses)
	k := min(6+p.r.intn(36), t-1)
	round := p.r.float() < 0.4
	turn := p.eitherTurn()
	if round {
		p.do(halfTurn, turn)
	}
	for i := 0; i < k && len(p.plan) < longest; i++ {
		b := p.actions[t-1-i]
		walk := b
		if b == ForwardLeft || b == ForwardRight {
			walk = Forward
		}
		switch {
		case round && walk.moves():
			p.do(1, walk)
		case !round && walk.moves():
			p.do(1, walk.opposite())
		case !round && walk == Noop:
			p.do(1, Noop)
		}
		switch b.Turn() {
		case -1:
			p.do(1, TurnRight)
		case 1:
			p.do(1, TurnLeft)
		}
	}
	if round && p.r.float() < 0.6 {
		p.do(halfTurn, turn)
	}
	p.exact = len(p.plan) > 0
}

// comeBack returns action q of the way back of [WalkAndReturn] after span frames.
func (p *player) comeBack(q, span int) Action {
	switch {
	case q < halfTurn, q >= halfTurn+span && q < 2*halfTurn+span:
		return TurnRight
	case q >= 2*halfTurn+span:
		return Noop
	}
	b := p.actions[span-(q-halfTurn)]
	if b == TurnLeft || b == TurnRight {
		b = b.opposite()
	}
	return b
}
