// Products by cuBLASLt called from C, with its first choice of algorithm: what longtake's products are compared with, by
// BenchmarkLinearBesideC of compute/cuda, in one process and with the same tensors.
// Build: nvcc -O2 -shared -Xcompiler -fPIC -o libgemm.so -x cu gemm.c -lcublasLt
#include <cublasLt.h>
#include <cuda_runtime.h>

#define OK(call)                        \
  do {                                  \
    int code = (int)(call);             \
    if (code != 0) return 1000 * __LINE__ + code; \
  } while (0)

static cublasLtHandle_t lt;
static void *work;
static cudaStream_t stream;
static cudaGraphExec_t exec;
static cudaEvent_t from, to;
static const size_t room = 32 << 20;

// gemm_capture makes a graph of calls products y [rows, out] = x [rows, in] wT + bias, all bfloat16. Kind 0 is without bias, 1 with, 2
// with bias and GELU. It returns 0, or the line and the library's error.
extern "C" int gemm_capture(void *x, void *w, void *bias, void *y, long rows, long in, long out, long kind, long calls) {
  if (lt == NULL) {
    OK(cublasLtCreate(&lt));
    OK(cudaMalloc(&work, room));
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    OK(cudaEventCreate(&from));
    OK(cudaEventCreate(&to));
  }
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
  if (found == 0) return 1;
  float one = 1, zero = 0;
  cudaGraph_t graph;
  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  for (long i = 0; i < calls; i++) OK(cublasLtMatmul(lt, desc, &one, w, a, x, b, &zero, y, c, y, c, &choice.algo, work, room, stream));
  OK(cudaStreamEndCapture(stream, &graph));
  if (exec != NULL) OK(cudaGraphExecDestroy(exec));
  OK(cudaGraphInstantiate(&exec, graph, 0));
  OK(cudaGraphDestroy(graph));
  cublasLtMatmulPreferenceDestroy(preference);
  cublasLtMatrixLayoutDestroy(a);
  cublasLtMatrixLayoutDestroy(b);
  cublasLtMatrixLayoutDestroy(c);
  cublasLtMatmulDescDestroy(desc);
  return 0;
}

// gemm_replay runs the graph that many times and writes the microseconds of the last.
extern "C" int gemm_replay(double *us, long times) {
  float ms = 0;
  for (long i = 0; i < times; i++) {
    OK(cudaEventRecord(from, stream));
    OK(cudaGraphLaunch(exec, stream));
    OK(cudaEventRecord(to, stream));
    OK(cudaStreamSynchronize(stream));
    OK(cudaEventElapsedTime(&ms, from, to));
  }
  *us = 1000.0 * ms;
  return 0;
}
