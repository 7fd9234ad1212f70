// The products of a Wan 1.3B block by cuBLASLt called from C, with its first choice of algorithm: what longtake's products are
// compared with. Build: nvcc -O2 -o gemm -x cu gemm.c -lcublasLt
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdio.h>
#include <stdlib.h>

#define OK(call)                                                          \
  do {                                                                    \
    int code = (int)(call);                                               \
    if (code != 0) return printf("%s: error %d\n", #call, code), 1;       \
  } while (0)

static int compare(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

__global__ void fill(__nv_bfloat16 *p, size_t n, unsigned seed) {
  for (size_t i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
    unsigned h = (unsigned)i * 2654435761u ^ seed;
    h ^= h >> 15, h *= 2246822519u, h ^= h >> 13;
    p[i] = __float2bfloat16((h & 0xffff) / 32768.0f - 1.0f);
  }
}

int main() {
  const int sizes[4][2] = {{1536, 1536}, {1536, 8960}, {8960, 1536}, {1536, 4608}}, rows = 4680, calls = 24;
  cublasLtHandle_t lt;
  OK(cublasLtCreate(&lt));
  void *work;
  size_t room = 32 << 20;
  OK(cudaMalloc(&work, room));
  cudaStream_t stream;
  OK(cudaStreamCreate(&stream));
  for (int s = 0; s < 4; s++) {
    int in = sizes[s][0], out = sizes[s][1];
    __nv_bfloat16 *x, *w, *y, *bias;
    OK(cudaMalloc(&x, 2l * rows * in));
    OK(cudaMalloc(&w, 2l * out * in));
    OK(cudaMalloc(&y, 2l * rows * out));
    OK(cudaMalloc(&bias, 2l * out));
    fill<<<256, 256, 0, stream>>>(x, (size_t)rows * in, 1);
    fill<<<256, 256, 0, stream>>>(w, (size_t)out * in, 2);
    fill<<<256, 256, 0, stream>>>(bias, out, 3);
    for (int kind = 0; kind < 3; kind++) {  // plain, bias, bias and GELU
      cublasLtMatmulDesc_t desc;
      cublasLtMatrixLayout_t a, b, c;
      cublasLtMatmulPreference_t preference;
      cublasOperation_t transposed = CUBLAS_OP_T;
      cublasLtEpilogue_t epilogue = kind == 0 ? CUBLASLT_EPILOGUE_DEFAULT : kind == 1 ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_GELU_BIAS;
      OK(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
      OK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
      OK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
      if (kind > 0) OK(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
      OK(cublasLtMatrixLayoutCreate(&a, CUDA_R_16BF, in, out, in));
      OK(cublasLtMatrixLayoutCreate(&b, CUDA_R_16BF, in, rows, in));
      OK(cublasLtMatrixLayoutCreate(&c, CUDA_R_16BF, out, rows, out));
      OK(cublasLtMatmulPreferenceCreate(&preference));
      OK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room));
      cublasLtMatmulHeuristicResult_t choice;
      int found = 0;
      OK(cublasLtMatmulAlgoGetHeuristic(lt, desc, a, b, c, c, preference, 1, &choice, &found));
      float one = 1, zero = 0, times[15];
      cudaGraph_t graph;
      cudaGraphExec_t exec;
      OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
      for (int i = 0; i < calls; i++) OK(cublasLtMatmul(lt, desc, &one, w, a, x, b, &zero, y, c, y, c, &choice.algo, work, room, stream));
      OK(cudaStreamEndCapture(stream, &graph));
      OK(cudaGraphInstantiate(&exec, graph, 0));
      cudaEvent_t from, to;
      OK(cudaEventCreate(&from));
      OK(cudaEventCreate(&to));
      for (int r = -3; r < 15; r++) {
        OK(cudaEventRecord(from, stream));
        OK(cudaGraphLaunch(exec, stream));
        OK(cudaEventRecord(to, stream));
        OK(cudaStreamSynchronize(stream));
        if (r >= 0) OK(cudaEventElapsedTime(&times[r], from, to));
      }
      qsort(times, 15, sizeof times[0], compare);
      float us = times[7] * 1000 / calls;
      printf("C %dx%dx%d %s %.1f us %.0f TFLOP/s\n", rows, in, out, kind == 0 ? "bf16" : kind == 1 ? "bias" : "bias gelu", us, 2.0 * rows * in * out / us / 1e6);
    }
    OK(cudaFree(x));
    OK(cudaFree(w));
    OK(cudaFree(y));
    OK(cudaFree(bias));
  }
  return 0;
}
