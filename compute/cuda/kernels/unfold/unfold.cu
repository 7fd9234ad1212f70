// The patches that a convolution multiplies with its weight, see README.md. Elements are moved as units of 16, 4 or 2 bytes.
struct UnfoldArgs {
  void* dst;
  const void* source[3];      // null: zeros
  i64 dstRow;                 // strides count units
  i64 row[3], column[3];      // of the sources
  Divisor width, channels;    // units of a row of dst, of a pixel
  Divisor taps, size;         // size * size, size
  Divisor columns, up;
  u32 total, stride, height, wide;  // the enlarged source
  i32 firstRow, firstColumn;  // of the rectangle, in source pixels, less the padding
};
static_assert(sizeof(UnfoldArgs) == 184, "UnfoldArgs is mirrored by unfoldArgs in image.go");

// A thread moves one unit: neighbours write neighbours and read the channels of one pixel, which nine taps take from the cache.
template <typename T>
__device__ __forceinline__ void unfold(const UnfoldArgs& a) {
  u32 n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n >= a.total) return;
  u32 pixel = over(n, a.width), k = n - pixel * a.width.d;
  u32 spot = over(k, a.channels), c = k - spot * a.channels.d;
  u32 s = over(spot, a.taps), tap = spot - s * a.taps.d;
  u32 i = over(tap, a.size), j = tap - i * a.size.d;
  u32 y0 = over(pixel, a.columns), x0 = pixel - y0 * a.columns.d;
  u32 y = (u32)(a.firstRow + (i32)(y0 * a.stride + i)), x = (u32)(a.firstColumn + (i32)(x0 * a.stride + j));
  const T* from = (const T*)(s == 0 ? a.source[0] : s == 1 ? a.source[1] : a.source[2]);
  i64 row = s == 0 ? a.row[0] : s == 1 ? a.row[1] : a.row[2], column = s == 0 ? a.column[0] : s == 1 ? a.column[1] : a.column[2];
  T v = {};
  if (from != nullptr && y < a.height && x < a.wide) v = from[over(y, a.up) * row + over(x, a.up) * column + c];
  ((T*)a.dst)[pixel * a.dstRow + k] = v;
}

extern "C" __global__ void __launch_bounds__(256) unfold_16(const __grid_constant__ UnfoldArgs a) { begin(), unfold<uint4>(a); }
extern "C" __global__ void __launch_bounds__(256) unfold_4(const __grid_constant__ UnfoldArgs a) { begin(), unfold<u32>(a); }
extern "C" __global__ void __launch_bounds__(256) unfold_2(const __grid_constant__ UnfoldArgs a) { begin(), unfold<u16>(a); }
