// Entry points of the simulator, for simulator.py: cu_* on the GPU, cpu_* on the CPU.
#include "walk.h"
#include "raycast.h"
#include "seen.h"

// One action of a player at a pose (x, y, heading index).
DEV inline void step_pose(const World& w, float* pose, int a) {
  int h = (int)pose[2];
  step(w, pose[0], pose[1], h, a);
  pose[2] = (float)h;
}

#ifdef __CUDACC__

__global__ void k_gen(u32 seed0, int n, int T, int kind, int ctx, int span, World* w, short* tok, float* pose,
                      u8* act) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n)
    gen_episode(seed0 + i, T, kind, ctx, span, w[i], tok + i * NT, pose + (size_t)i * T * 3, act + (size_t)i * T);
}

__global__ void k_render(const World* w, const float* pose, u8* out, int T, int W, int H, int n) {
  int f = blockIdx.x;
  __shared__ World ws;
  if (threadIdx.x < sizeof(World) / 4)
    for (int i = threadIdx.x; i < (int)(sizeof(World) / 4); i += blockDim.x)
      ((u32*)&ws)[i] = ((const u32*)&w[f / T])[i];
  __syncthreads();
  const float* p = pose + (size_t)f * 3;
  for (int i = threadIdx.x; i < W * H; i += blockDim.x)
    render_px(ws, p[0], p[1], p[2], W, H, i % W, i / W, out + ((size_t)f * W * H + i) * 3);
}
__global__ void k_step(const World* w, float* pose, const u8* act, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) step_pose(w[i], pose + i * 3, act[i]);
}
__global__ void k_seen(const World* w, const float* pose, u8* out, int T, int given, int W, int H) {
  int f = blockIdx.x;
  for (int i = threadIdx.x; i < W * H; i += blockDim.x)
    out[(size_t)f * W * H + i] = seen_px(w[f / T], pose + (size_t)(f / T) * T * 3, f % T, given, W, H, i % W, i / W);
}

extern "C" int world_size() { return sizeof(World); }
extern "C" int cu_seen(void* w, void* pose, void* out, int n, int T, int given, int W, int H, void* st) {
  k_seen<<<n * T, 256, 0, (cudaStream_t)st>>>((World*)w, (float*)pose, (u8*)out, T, given, W, H);
  return cudaGetLastError();
}
extern "C" int cu_step(void* w, void* pose, void* act, int n, void* st) {
  k_step<<<(n + 31) / 32, 32, 0, (cudaStream_t)st>>>((World*)w, (float*)pose, (u8*)act, n);
  return cudaGetLastError();
}
extern "C" int cu_gen(u32 seed0, int n, int T, int kind, int ctx, int span, void* w, void* tok, void* pose, void* act,
                      void* st) {
  k_gen<<<(n + 31) / 32, 32, 0, (cudaStream_t)st>>>(seed0, n, T, kind, ctx, span, (World*)w, (short*)tok, (float*)pose,
                                                    (u8*)act);
  return cudaGetLastError();
}
extern "C" int cu_render(void* w, void* pose, void* out, int n, int T, int W, int H, void* st) {
  k_render<<<n * T, 256, 0, (cudaStream_t)st>>>((World*)w, (float*)pose, (u8*)out, T, W, H, n);
  return cudaGetLastError();
}
#else
extern "C" int world_size() { return sizeof(World); }
extern "C" int cpu_step(void* w, void* pose, void* act, int n) {
  for (int i = 0; i < n; i++) step_pose(((World*)w)[i], (float*)pose + i * 3, ((u8*)act)[i]);
  return 0;
}
extern "C" int cpu_gen(u32 seed0, int n, int T, int kind, int ctx, int span, void* w, void* tok, void* pose,
                       void* act) {
  for (int i = 0; i < n; i++)
    gen_episode(seed0 + i, T, kind, ctx, span, ((World*)w)[i], (short*)tok + i * NT, (float*)pose + (size_t)i * T * 3,
                (u8*)act + (size_t)i * T);
  return 0;
}
extern "C" int cpu_render(void* w, void* pose, void* out, int n, int T, int W, int H) {
  for (int f = 0; f < n * T; f++) {
    float* p = (float*)pose + (size_t)f * 3;
    for (int i = 0; i < W * H; i++)
      render_px(((World*)w)[f / T], p[0], p[1], p[2], W, H, i % W, i / W, (u8*)out + ((size_t)f * W * H + i) * 3);
  }
  return 0;
}
extern "C" int cpu_seen(void* w, void* pose, void* out, int n, int T, int given, int W, int H) {
  for (int f = 0; f < n * T; f++)
    for (int i = 0; i < W * H; i++)
      ((u8*)out)[(size_t)f * W * H + i] =
          seen_px(((World*)w)[f / T], (float*)pose + (size_t)(f / T) * T * 3, f % T, given, W, H, i % W, i / W);
  return 0;
}
#endif
