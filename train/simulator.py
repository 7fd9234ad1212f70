"""Binding of the maze simulator sim.cu, built by nvcc (device "cuda") or g++ (device "cpu") in the temporary folder."""
import ctypes
import os
import subprocess
import tempfile

import torch

MIXED, LOOK, CIRCLES, UNDO, RETURN, STROLL = range(6)  # kinds of walk, as in walk.h
HERE = os.path.dirname(os.path.abspath(__file__))


def pointer(a):
    return ctypes.c_void_p(a.data_ptr())


class Sim:
    """Worlds, prompts, walks and frames from seeds; the same seed gives the same episode."""

    def __init__(self, dev="cuda"):
        self.dev, self.cpu = dev, dev == "cpu"
        lib = os.path.join(tempfile.gettempdir(), f"libsim_{'cpu' if self.cpu else 'cuda'}.so")
        source = os.path.join(HERE, "sim.cu")
        if self.cpu:
            cmd = ["g++", "-O2", "-x", "c++", "-shared", "-fPIC", "-o", lib, source]
        else:
            cmd = ["nvcc", "-O3", "--use_fast_math", "-gencode=arch=compute_90,code=sm_90", "-shared",
                   "-Xcompiler", "-fPIC", "-o", lib, source]
        subprocess.check_call(cmd)
        self.lib = ctypes.CDLL(lib)
        self.world_bytes = self.lib.world_size()

    def gen(self, seed, n, frames, kind=0, ctx=0, span=0):
        """n episodes with seeds seed .. seed+n-1: worlds, prompt ids [n,128], poses [n,frames,3], actions [n,frames].

        kind: one of MIXED .. STROLL (walk.h).
        """
        w = torch.zeros(n, self.world_bytes, dtype=torch.uint8, device=self.dev)
        tok = torch.zeros(n, 128, dtype=torch.int16, device=self.dev)
        pose = torch.zeros(n, frames, 3, dtype=torch.float32, device=self.dev)
        act = torch.zeros(n, frames, dtype=torch.uint8, device=self.dev)
        args = [ctypes.c_uint32(seed & 0xffffffff), n, frames, kind, ctx, span]
        args += [pointer(a) for a in (w, tok, pose, act)]
        if self.cpu:
            self.lib.cpu_gen(*args)
        else:
            assert self.lib.cu_gen(*args, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)) == 0
        return w, tok.long(), pose, act.long()

    def step(self, w, pose, act):
        """The poses [n,3] after the actions [n]; walls stop the players."""
        pose, act, w = pose.clone().contiguous(), act.to(torch.uint8).contiguous(), w.contiguous()
        args = [pointer(a) for a in (w, pose, act)] + [len(act)]
        if self.cpu:
            self.lib.cpu_step(*args)
        else:
            assert self.lib.cu_step(*args, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)) == 0
        return pose

    def render(self, w, pose, width=64, height=64):
        """Frames [n,frames,height,width,3] uint8 of the poses."""
        n, frames = pose.shape[:2]
        out = torch.empty(n, frames, height, width, 3, dtype=torch.uint8, device=self.dev)
        pose, w = pose.contiguous(), w.contiguous()
        args = [pointer(a) for a in (w, pose, out)] + [n, frames, width, height]
        if self.cpu:
            self.lib.cpu_render(*args)
        else:
            assert self.lib.cu_render(*args, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)) == 0
        return out

    def seen(self, w, pose, given=0, width=64, height=64):
        """Of every pixel [n,frames,height,width] uint8, how well the frames before it (the first `given` of them, if not 0) have shown
        it: 0 never, 1 only from more than twice as far, 2 from nearer or sky; and what it is (seen.h)."""
        n, frames = pose.shape[:2]
        out = torch.empty(n, frames, height, width, dtype=torch.uint8, device=self.dev)
        pose, w = pose.contiguous(), w.contiguous()
        args = [pointer(a) for a in (w, pose, out)] + [n, frames, given, width, height]
        if self.cpu:
            self.lib.cpu_seen(*args)
        else:
            assert self.lib.cu_seen(*args, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)) == 0
        return out % 4, out // 4

    def clips(self, seed, n, frames, size=(64, 64), **k):
        """Frames of that height and width, prompt ids, actions, headings, worlds, poses of n episodes."""
        w, tok, pose, act = self.gen(seed, n, frames, **k)
        return self.render(w, pose, size[1], size[0]), tok, act, pose[..., 2].round().long(), w, pose
