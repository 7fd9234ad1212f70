package webm
import ("testing";"fmt";"os";"bytes";"time";"runtime";"image/png";"crypto/sha256";"golang.org/x/image/vp8";"longtake/video";"longtake/video/metric"; "github.com/deepteams/webp")
func dec(b []byte) video.Frame {
 d:=vp8.NewDecoder(); d.Init(bytes.NewReader(b),len(b)); if _,e:=d.DecodeFrameHeader();e!=nil{panic(e)}
 m,e:=d.DecodeFrame(); if e!=nil{panic(e)}
 p:=video.Planes{Width:m.Rect.Dx(),Height:m.Rect.Dy()}
 cw,ch:=p.ChromaSize()
 for y:=0;y<p.Height;y++{p.Y=append(p.Y,m.Y[y*m.YStride:][:p.Width]...)}
 for y:=0;y<ch;y++{p.Cb=append(p.Cb,m.Cb[y*m.CStride:][:cw]...);p.Cr=append(p.Cr,m.Cr[y*m.CStride:][:cw]...)}
 return p.RGB()
}
func TestTmp(t *testing.T){
 for _,name:=range []string{"a","b"}{
 f,err:=os.Open("/tmp/vq/"+name+".png"); if err!=nil{t.Skip()}
 m,_:=png.Decode(f); fr:=video.FromImage(m)
 for _,q:=range []int{75,85,92}{ for _,me:=range []int{0,1,2,3,4}{
  o:=webp.DefaultOptions(); o.Quality=float32(q); o.Method=me
  e:=&vp8{opts:o}
  runtime.GOMAXPROCS(1)
  b,_:=e.EncodeKeyFrame(fr); h1:=sha256.Sum256(b)
  t0:=time.Now(); for range 4 {b,_=e.EncodeKeyFrame(fr)}; d1:=time.Since(t0)/4
  h2:=sha256.Sum256(b)
  runtime.GOMAXPROCS(2)
  t0=time.Now(); for range 4 {b,_=e.EncodeKeyFrame(fr)}; d:=time.Since(t0)/4
  h3:=sha256.Sum256(b)
  ps,_:=metric.PSNR(fr,dec(b)); ss,_:=metric.SSIM(fr,dec(b))
  fmt.Printf("%s %dx%d q%d m%d %d B %.2f dB ssim %.4f %v 1p %v 2p same %v %v\n",name,fr.Width,fr.Height,q,me,len(b),ps,ss,d1,d,h1==h2,h1==h3)
 }}}}
