#include "compute/cuda/gemm.h"

#include <algorithm>

#include "compute/cuda/check.h"

namespace fovea::compute::cuda {
namespace {

// What NVIDIA's documentation advises for Hopper; enough for others.
constexpr size_t kWorkspaceBytes = size_t{32} << 20;
// More shapes than one model has; prompts of every length would let the table grow without end.
constexpr size_t kMaxPlans = 4096;

constexpr std::string_view kMakeRoom =
    "end other programs that use the GPU (`nvidia-smi` names them), or use device 'cpu'";

absl::Status ToStatus(cublasStatus_t status, std::string_view what, const GemmArgs& args) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string message = StrCat(
      "cuBLASLt: ", what, " failed with status ", static_cast<int>(status), " for [", args.n_rows,
      ",", args.k, "] x [", args.n, ",", args.k, "] of ", Traits(args.dtype).name);
  if (status == CUBLAS_STATUS_ALLOC_FAILED) {
    return absl::ResourceExhaustedError(StrCat(message, ": no memory is left: ", kMakeRoom));
  }
  return absl::InternalError(message);
}

int Alignment(const void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data);
  return static_cast<int>(std::min<uintptr_t>(address & -address, 16));
}

}  // namespace

// What a call of one shape takes. In the library's column-major words: outᵀ [n, n_rows] =
// (wᵀ [k, n])ᵀ · xᵀ [k, n_rows].
class GemmPlans::Plan {
 public:
  explicit Plan(const CublasLt& library) : library_(library) {}
  ~Plan() {
    if (operation != nullptr) library_.MatmulDescDestroy(operation);
    for (cublasLtMatrixLayout_t layout : {w, x, out}) {
      if (layout != nullptr) library_.MatrixLayoutDestroy(layout);
    }
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr;
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t out = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};

 private:
  const CublasLt& library_;
};

absl::StatusOr<std::unique_ptr<GemmPlans>> GemmPlans::Create() {
  ASSIGN_OR_RETURN(const CublasLt* const library, LoadCublasLt());
  std::unique_ptr<GemmPlans> plans(new GemmPlans(library));
  if (const cublasStatus_t status = library->Create(&plans->handle_);
      status != CUBLAS_STATUS_SUCCESS) {
    return absl::UnavailableError(StrCat("cuBLASLt: cannot be started (status ",
                                         static_cast<int>(status),
                                         "), most likely for want of memory: ", kMakeRoom));
  }
  return plans;
}

GemmPlans::~GemmPlans() {
  plans_.clear();
  if (handle_ != nullptr) library_.Destroy(handle_);
}

absl::StatusOr<std::shared_ptr<const GemmPlans::Plan>> GemmPlans::FindPlan(const GemmArgs& args) {
  const int alignments[] = {Alignment(args.w), Alignment(args.x), Alignment(args.out)};
  const Key key{args.dtype,    args.n_rows,   args.n,       args.k,
                alignments[0], alignments[1], alignments[2]};
  if (const auto it = plans_.find(key); it != plans_.end()) return it->second;
  if (plans_.size() >= kMaxPlans) plans_.clear();

  auto plan = std::make_shared<Plan>(library_);
  cublasLtMatmulPreference_t preference = nullptr;
  const auto make = [&]() -> absl::Status {
    const cudaDataType_t type = args.dtype == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F;
    RETURN_IF_ERROR(
        ToStatus(library_.MatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "describing the product", args));
    const cublasOperation_t transpose = CUBLAS_OP_T;
    RETURN_IF_ERROR(
        ToStatus(library_.MatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                 &transpose, sizeof(transpose)),
                 "describing the product", args));
    const auto describe = [&](cudaDataType_t of, int64_t rows, int64_t columns,
                              cublasLtMatrixLayout_t* layout) {
      return ToStatus(library_.MatrixLayoutCreate(layout, of, static_cast<uint64_t>(rows),
                                                  static_cast<uint64_t>(columns), rows),
                      "describing a matrix", args);
    };
    RETURN_IF_ERROR(describe(type, args.k, args.n, &plan->w));
    RETURN_IF_ERROR(describe(type, args.k, args.n_rows, &plan->x));
    RETURN_IF_ERROR(describe(CUDA_R_32F, args.n, args.n_rows, &plan->out));
    RETURN_IF_ERROR(
        ToStatus(library_.MatmulPreferenceCreate(&preference), "choosing an algorithm", args));
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      return ToStatus(
          library_.MatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
          "choosing an algorithm", args);
    };
    RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes));
    const auto alignment = [&](int i) { return static_cast<uint32_t>(alignments[i]); };
    RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(0)));
    RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(1)));
    RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(2)));
    RETURN_IF_ERROR(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(2)));
    cublasLtMatmulHeuristicResult_t result = {};
    int n_results = 0;
    RETURN_IF_ERROR(ToStatus(
        library_.MatmulAlgoGetHeuristic(handle_, plan->operation, plan->w, plan->x, plan->out,
                                        plan->out, preference, 1, &result, &n_results),
        "choosing an algorithm", args));
    if (n_results == 0) return ToStatus(CUBLAS_STATUS_NOT_SUPPORTED, "choosing an algorithm", args);
    plan->algorithm = result.algo;
    return absl::OkStatus();
  };
  const absl::Status status = make();
  if (preference != nullptr) library_.MatmulPreferenceDestroy(preference);
  RETURN_IF_ERROR(status);
  return plans_.emplace(key, std::move(plan)).first->second;
}

absl::Status GemmPlans::Run(Device& device, cudaStream_t stream, const GemmArgs& args) {
  RETURN_IF_ERROR(device.Reserve(kWorkspaceBytes, &workspace_));
  ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, FindPlan(args));
  const float alpha = 1.0f;
  const float beta = args.add_to_out ? 1.0f : 0.0f;
  return ToStatus(
      library_.Matmul(handle_, plan->operation, &alpha, args.w, plan->w, args.x, plan->x, &beta,
                      args.out, plan->out, args.out, plan->out, &plan->algorithm,
                      workspace_.data<void>(), kWorkspaceBytes, stream),
      "the product", args);
}

}  // namespace fovea::compute::cuda
