package cuda

import (
	"errors"
	"fmt"
	"io"
)

// errRecording says that a call cannot be part of a graph.
var errRecording = errors.New("not possible while a graph is recorded")

// graph is a recorded sequence of launches.
type graph struct {
	queue *queue
	exec  uintptr
}

// Close gives the graph back.
func (g *graph) Close() error {
	if g.exec != 0 {
		g.queue.drv.FreeGraph(g.exec)
		g.exec = 0
	}
	return nil
}

// Capture records what run calls on the queue, without executing it. Everything run uses must have been used once before on
// this queue (kernels compiled, work space grown), tensors are recorded by address, and Upload, Download and Wait are not
// possible inside. A failure leaves the queue usable unless run itself broke it.
func (q *queue) Capture(run func()) (io.Closer, error) {
	if err := q.Err(); err != nil {
		return nil, err
	}
	q.flush()
	if q.recording || q.batch.open {
		return nil, fmt.Errorf("cuda: capture: %w", errRecording)
	}
	if err := q.drv.BeginCapture(q.stream); err != nil {
		return nil, fmt.Errorf("cuda: capture: %w", err)
	}
	q.recording = true
	ended := false
	defer func() { // run may panic: the stream must not stay in capture mode
		q.recording = false
		if !ended {
			if exec, err := q.drv.EndCapture(q.stream, 0); err == nil {
				q.drv.FreeGraph(exec)
			}
		}
	}()
	run()
	ended = true
	exec, err := q.drv.EndCapture(q.stream, 0)
	if q.err != nil {
		broken := q.err
		q.err = nil // nothing was executed
		if err == nil {
			q.drv.FreeGraph(exec)
		}
		return nil, broken
	}
	if err != nil {
		return nil, fmt.Errorf("cuda: capture: %w", err)
	}
	return &graph{q, exec}, nil
}

// Replay executes a graph that this queue captured.
func (q *queue) Replay(recorded io.Closer) {
	if q.err != nil {
		return
	}
	g, ok := recorded.(*graph)
	if !ok || g.queue != q || g.exec == 0 {
		panic("cuda: replay of a graph that this queue did not capture, or that was closed")
	}
	if q.recording {
		q.fail("replay", errRecording)
		return
	}
	q.ops++
	q.flush()
	q.fail("replay", q.drv.LaunchGraph(g.exec, q.stream))
}
