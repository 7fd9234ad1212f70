"""Writes the .pt files of this folder with PyTorch (any from 1.6; made with 1.13.1 on a CPU) and expected.json beside them."""
import collections, json, os, pickle, zipfile, torch

here = os.path.dirname(os.path.abspath(__file__))
torch.manual_seed(1)
base = torch.randn(6, 5)
state = collections.OrderedDict(
    f32=base, transposed=base.t(), part=base[2:4, 1:3], bf16=torch.randn(3, 4).bfloat16(), f16=torch.randn(7).half(),
    f64=torch.randn(2).double(), i64=torch.arange(-2, 3), flag=torch.tensor([True, False]), scalar=torch.tensor(2.5),
    empty=torch.zeros(0, 3), parameter=torch.nn.Parameter(torch.randn(2, 2)))
state._metadata = {"": {"version": 1}}
torch.save({"generator": {"model": state}, "step": 7, "name": "test", "lr": [0.1, (1, 2)], "none": None}, here + "/nested.pt")
expected = {"generator.model." + k: {"shape": list(v.shape), "values": v.detach().double().flatten().tolist()} for k, v in state.items()}
json.dump(expected, open(here + "/expected.json", "w"))


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/longtake-was-here",))


def archive(name, program):
    with zipfile.ZipFile(here + "/" + name, "w", zipfile.ZIP_STORED) as z:
        z.writestr("archive/data.pkl", program)


archive("evil.pt", pickle.dumps({"w": Evil()}, protocol=2))
archive("evil4.pt", pickle.dumps({"w": Evil()}, protocol=4))
