"""Builds and launches the attention kernels of compute/cuda/kernels/attend with NVRTC and the driver API.

What enters: torch CUDA tensors; what leaves: filled outputs. The launch record, tensor maps and plan are the
contract of that folder's README; the Go engine follows the same steps.
"""
import ctypes as C
import glob
import math
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
KERNELS = os.path.join(HERE, "../../../compute/cuda/kernels/attend")
ROWS = 128


def find_nvrtc():
    found = []
    for root in list(sys.path) + ["/usr/local/cuda/lib64", "/usr/lib/x86_64-linux-gnu"]:
        for pattern in ("nvidia/cu13/lib/libnvrtc.so.*", "nvidia/cuda_nvrtc/lib/libnvrtc.so.*", "libnvrtc.so.*"):
            found += [p for p in glob.glob(os.path.join(root, pattern)) if "builtins" not in p and "alt" not in p]
    if not found:
        raise RuntimeError("no libnvrtc found")
    return C.CDLL(found[0])


def compile_cubin(job):
    """(file, defines, arch) -> (cubin bytes or None, log). Runs in a child process."""
    name, defines, arch = job
    rtc = find_nvrtc()
    parts = ["attend_parts.cuh"] + (["attend_hopper.cuh"] if name == "attend_sm90" else []) + [f"{name}.cu"]
    source = "".join(open(f"{KERNELS}/{p}").read() for p in parts)
    prog = C.c_void_p()
    rtc.nvrtcCreateProgram(C.byref(prog), source.encode(), f"{name}.cu".encode(), 0, None, None)
    options = [f"--gpu-architecture={arch}", "--std=c++17", "--ptxas-options=-v"]
    options += [f"-D{k}={v}" for k, v in defines]
    array = (C.c_char_p * len(options))(*[o.encode() for o in options])
    status = rtc.nvrtcCompileProgram(prog, len(options), array)
    size = C.c_size_t()
    rtc.nvrtcGetProgramLogSize(prog, C.byref(size))
    log = C.create_string_buffer(size.value + 1)
    rtc.nvrtcGetProgramLog(prog, log)
    if status != 0:
        return None, log.value.decode()
    rtc.nvrtcGetCUBINSize(prog, C.byref(size))
    cubin = C.create_string_buffer(size.value)
    rtc.nvrtcGetCUBIN(prog, cubin)
    return cubin.raw, log.value.decode()


class Attention(C.Structure):
    _fields_ = ([(n, C.c_void_p) for n in
                 "out logSum logCount lengths tileKeys tileEnds partOut partLogSum counter".split()] +
                [(n, C.c_longlong) for n in "outHead outToken logCountHead".split()] +
                [(n, C.c_int) for n in "heads queries keys queryTiles whole pieces".split()] +
                [("scale", C.c_float), ("pad", C.c_int)])


class Operands(C.Structure):
    _fields_ = ([(n, C.c_void_p) for n in "query key value".split()] +
                [(n, C.c_longlong) for n in "queryHead queryToken keyHead keyToken valueHead valueToken".split()])


_cuda = None


def driver():
    global _cuda
    if _cuda is None:
        _cuda = C.CDLL("libcuda.so.1")
    return _cuda


def check(status, what):
    if status != 0:
        text = C.c_char_p()
        driver().cuGetErrorString(status, C.byref(text))
        raise RuntimeError(f"{what}: {status} {text.value}")


class TensorMap:
    """A 3-D map [heads][tokens][dim] with boxes of `rows` tokens by 64 columns, 128-byte swizzle."""

    def __init__(self, t, tokens, rows, promotion=3):
        heads, _, dim = t.shape
        self.buffer = C.create_string_buffer(256)
        self.at = (C.addressof(self.buffer) + 63) & ~63
        dims = (C.c_uint64 * 3)(dim, tokens, heads)
        strides = (C.c_uint64 * 2)(t.stride(1) * 2, max(t.stride(0), 8) * 2)
        box = (C.c_uint32 * 3)(64, rows, 1)
        ones = (C.c_uint32 * 3)(1, 1, 1)
        check(driver().cuTensorMapEncodeTiled(C.c_void_p(self.at), 9, 3, C.c_void_p(t.data_ptr()), dims, strides, box,
                                              ones, 0, 3, promotion, 0), "encode tensor map")


def plan(tiles, stages, sms):
    """(whole, pieces): the first `whole` tiles stay whole, the rest is cut into pieces of equal length so that every SM
    ends together.

    Costs are in stages: 1 for starting and ending an item, and for the merge a launch and its bytes.
    """
    rest = tiles % sms
    if rest == 0 or stages < 2:
        return tiles, 1
    best = (stages + 1.0, 1)
    for pieces in [rest * p for p in range(2, 17)] + [sms * m for m in range(1, 5)]:
        if pieces > 4 * sms or pieces > rest * min(stages, 16) or pieces < rest:
            continue
        parts = 1 if pieces % rest == 0 else 1 + rest / pieces
        cost = -(-pieces // sms) * (rest * stages / pieces + parts) + 2 + 0.02 * (pieces + rest)
        best = min(best, (cost, pieces))
    return (tiles, 1) if best[1] == 1 else (tiles - rest, best[1])


class Kernel:
    """One compiled variant. defines: dict as in the .cu headers."""

    def __init__(self, name, defines, cubin):
        import torch
        self.torch, self.name, self.defines = torch, name, dict(defines)
        get = self.defines.get
        self.dim, self.list_tile = int(get("HEAD_DIM", 128)), int(get("LIST_TILE", 0))
        self.bias, self.ragged, self.f32 = (int(get(k, 0)) for k in ("BIAS", "RAGGED", "OUT_F32"))
        self.block_n, self.stages = int(get("BLOCK_N", 128)), int(get("STAGES", 2))
        self.module, self.function, self.merge = C.c_void_p(), C.c_void_p(), C.c_void_p()
        d = driver()
        check(d.cuModuleLoadData(C.byref(self.module), cubin), "load")
        check(d.cuModuleGetFunction(C.byref(self.function), self.module, b"attend"), "get attend")
        check(d.cuModuleGetFunction(C.byref(self.merge), self.module, b"attend_merge"), "get merge")
        self.sm90 = name == "attend_sm90"
        if self.sm90:
            stage = self.block_n * self.dim * 2
            one = ROWS * self.dim * 2
            self.shared = 1024 + 2 * self.stages * stage + (self.stages * self.block_n * 32 if self.bias else 0) + 256
            self.shared += one * int(get("QUERY_BUFFERS", 2 if self.shared + 2 * one <= 227 * 1024 else 1))
        else:
            self.block_n = 64
            self.shared = ROWS * self.dim * 2 + 4 * 64 * self.dim * 2
        check(d.cuFuncSetAttribute(self.function, 8, self.shared), "shared memory")
        self.sms = torch.cuda.get_device_properties(0).multi_processor_count
        self.counter = torch.zeros(2, dtype=torch.int32, device="cuda")

    def attribute(self, which):
        x = C.c_int()
        check(driver().cuFuncGetAttribute(C.byref(x), which, self.function), "attribute")
        return x.value

    def registers(self):
        return self.attribute(4), self.attribute(3)

    def prepare(self, q, k, v, out, keys=None, scale=None, log_sum=None, log_count=None, lengths=None, tile_keys=None,
                tile_ends=None, pieces=None, whole=None, dynamic=False, mean_tiles=None):
        """Returns a function that launches. q [heads, nq, dim], k and v [heads, cap, dim]; views with strides pass."""
        torch = self.torch
        heads, nq, dim = q.shape
        assert dim == self.dim and q.stride(2) == k.stride(2) == v.stride(2) == 1
        keys = k.shape[1] if keys is None else keys
        a = Attention()
        a.out, a.outHead, a.outToken = out.data_ptr(), out.stride(0), out.stride(1)
        a.heads, a.queries, a.keys, a.queryTiles = heads, nq, keys, -(-nq // ROWS)
        a.scale = dim ** -0.5 if scale is None else scale
        hold = [q, k, v, out, log_sum, log_count, lengths, tile_keys, tile_ends]
        for field, t in (("logSum", log_sum), ("logCount", log_count), ("lengths", lengths), ("tileKeys", tile_keys),
                         ("tileEnds", tile_ends)):
            setattr(a, field, t.data_ptr() if t is not None else None)
        a.logCountHead = log_count.stride(0) if log_count is not None else 0
        tiles = heads * a.queryTiles
        if self.list_tile:
            mean = mean_tiles if mean_tiles is not None else tile_keys.numel() / tiles
            stages = int(mean * self.list_tile / self.block_n)
        else:
            stages = -(-keys // self.block_n)
        if pieces is None:
            a.whole, a.pieces = plan(tiles, stages, self.sms)
        else:
            a.whole, a.pieces = (tiles if whole is None else whole), pieces
        rest = tiles - a.whole
        if rest:
            slots = rest + a.pieces - 1
            part = torch.full((slots, ROWS, dim), math.nan, dtype=torch.float32, device="cuda")
            sums = torch.full((slots, ROWS), math.nan, dtype=torch.float32, device="cuda")
            a.partOut, a.partLogSum = part.data_ptr(), sums.data_ptr()
            hold += [part, sums]
        items = a.whole + (a.pieces if rest else 0)
        a.counter = self.counter.data_ptr() if dynamic else None
        if self.sm90:
            rows = 64 if self.list_tile == 64 else self.block_n
            bound = k.shape[1] if self.ragged else keys
            maps = [TensorMap(q, nq, ROWS), TensorMap(k, bound, rows), TensorMap(v, bound, rows)]
            hold += maps
            values = [C.c_void_p(m.at) for m in maps] + [C.c_void_p(C.addressof(a))]
            grid, block = min(items, self.sms), 384
        else:
            x = Operands(q.data_ptr(), k.data_ptr(), v.data_ptr(), q.stride(0), q.stride(1), k.stride(0), k.stride(1),
                         v.stride(0), v.stride(1))
            hold.append(x)
            values = [C.c_void_p(C.addressof(x)), C.c_void_p(C.addressof(a))]
            grid, block = items + (rest - 1 if rest else 0), 256
        params = (C.c_void_p * len(values))(*values)
        only = (C.c_void_p * 1)(C.addressof(a))
        launch, merge_rows = driver().cuLaunchKernel, rest * ROWS
        hold += [a, params, only]

        def run(_hold=hold):
            queue = C.c_void_p(torch.cuda.current_stream().cuda_stream)
            check(launch(self.function, grid, 1, 1, block, 1, 1, self.shared, queue, params, None), "launch attend")
            if merge_rows:
                check(launch(self.merge, -(-merge_rows // 8), 1, 1, 256, 1, 1, 0, queue, only, None), "launch merge")

        run.plan = (a.whole, a.pieces, tiles, stages)
        return run
