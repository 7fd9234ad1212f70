package cpu

// shareTask is work of the host.
type shareTask struct{ do func(i int) }

func (t *shareTask) tile(_ *scratch, i int) { t.do(i) }

// Share calls do for every number below n, see compute.Sharer.
func (q *Queue) Share(n int, do func(i int)) {
	q.share.do = do
	q.run(&q.share, n)
	q.share.do = nil
}
