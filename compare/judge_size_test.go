package compare

import (
	"testing"

	"longtake/video"
)

func TestTheJudgeSeesLargerFramesSmaller(t *testing.T) {
	small, large := video.NewFrame(64, 64), video.NewFrame(192, 128)
	for i := range small.Pix {
		small.Pix[i] = byte(i * 7)
	}
	for y := range 128 {
		for x := range 192 {
			for c := range 3 {
				v := byte(200) // beside the middle square
				if x >= 32 && x < 160 {
					v = small.Pix[3*(y/2*64+(x-32)/2)+c]
				}
				large.Pix[3*(y*192+x)+c] = v
			}
		}
	}
	if got := seen(large); string(got.Pix) != string(small.Pix) {
		t.Error("a frame of twice the size is not seen as the frame itself")
	}
	if got := seen(small); &got.Pix[0] != &small.Pix[0] {
		t.Error("a frame of the judge's size was copied")
	}
}
