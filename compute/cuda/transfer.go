package cuda

import (
	"fmt"

	"longtake/compute"
)

// Upload fills dst (contiguous) from src, which may be reused when the call returns.
func (q *queue) Upload(dst compute.Tensor, src []byte) {
	if q.err != nil {
		return
	}
	if !(dst.Contiguous() && int64(len(src)) == dst.Bytes()) {
		mismatch("upload", dst, fmt.Sprint(len(src), " bytes"))
	}
	if len(src) == 0 {
		return
	}
	if q.recording {
		q.fail("upload", errRecording)
		return
	}
	q.ops++
	q.flush()
	if q.err != nil {
		return
	}
	q.fail("upload", q.staging.in(address(dst), src, 1, 1, nil, q.stream))
}

// Follow lets what is called from now on begin after everything that was called on other, a queue of this device.
func (q *queue) Follow(other compute.Queue) {
	o, ok := other.(*queue)
	if !ok || o.device != q.device {
		panic("cuda: follow: the queue belongs to another device")
	}
	if q.recording || o.recording {
		q.fail("follow", errRecording)
	}
	q.flush()
	o.flush()
	if q.err != nil || o.err != nil {
		return
	}
	if o.mark == 0 {
		var err error
		if o.mark, err = o.drv.NewEvent(false); err != nil {
			q.fail("follow", err)
			return
		}
	}
	if err := o.drv.Record(o.mark, o.stream); err != nil {
		o.fail("follow", err)
		return
	}
	q.fail("follow", q.drv.WaitEvent(q.stream, o.mark))
}

// Download fills dst from src (contiguous) and returns when the bytes are there.
func (q *queue) Download(dst []byte, src compute.Tensor) {
	if q.Err() != nil {
		return
	}
	if !(src.Contiguous() && int64(len(dst)) == src.Bytes()) {
		mismatch("download", src, fmt.Sprint(len(dst), " bytes"))
	}
	if len(dst) == 0 {
		return
	}
	if q.recording {
		q.fail("download", errRecording)
		return
	}
	q.flush()
	if q.err != nil {
		return
	}
	q.fail("download", q.staging.out(dst, address(src), q.stream))
}
