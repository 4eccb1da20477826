#include "compute/cpu/gemm.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl_version.h>

#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <utility>

namespace fovea::compute::cpu {
namespace {

using Md = dnnl::memory::desc;

// oneDNN chooses layouts and blockings by the size of its OpenMP team, which here is always the
// one thread that calls. The caller's own setting comes back afterwards.
class SingleThreaded {
 public:
  SingleThreaded() : saved_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~SingleThreaded() { omp_set_num_threads(saved_); }
  SingleThreaded(const SingleThreaded&) = delete;
  SingleThreaded& operator=(const SingleThreaded&) = delete;

 private:
  int saved_;
};

absl::Status FromDnnl(const dnnl::error& error, int64_t n, int64_t k) {
  const std::string message = StrCat("oneDNN, weights [", n, ",", k, "]: ", error.message,
                                     " (status ", static_cast<int>(error.status), ")");
  return error.status == dnnl_out_of_memory ? absl::ResourceExhaustedError(message)
                                            : absl::InternalError(message);
}

Md PlainMd(int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride) {
  return Md({rows, columns}, dnnl::memory::data_type::f32, {row_stride, column_stride});
}

dnnl::matmul::primitive_desc MakeMatmul(const dnnl::engine& engine, const GemmShape& shape,
                                        const Md& weights) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const Md x = PlainMd(shape.rows, shape.k, shape.k, 1);
  const Md out = PlainMd(shape.rows, shape.n, shape.n, 1);
#if DNNL_VERSION_MAJOR >= 3  // its descriptors of operations are gone
  return {engine, x, weights, out, attributes};
#else
  return {dnnl::matmul::desc(x, weights, out), attributes, engine};
#endif
}

// The layout of packed weights is the one that oneDNN chooses for this many rows.
constexpr int64_t kTypicalRows = 64;

// Prompts come in every length, and each last chunk of rows wants a plan; a plan is some ten
// kilobytes of code.
constexpr size_t kMaxPlans = 1024;

class DnnlPlan final : public GemmPlan {
 public:
  DnnlPlan(dnnl::engine engine, const GemmShape& shape, const dnnl::matmul::primitive_desc& desc)
      : engine_(std::move(engine)),
        n_(shape.n),
        k_(shape.k),
        stream_(engine_),
        matmul_(desc),
        x_(desc.src_desc()),
        weights_(desc.weights_desc()),
        out_(desc.dst_desc()),
        scratchpad_(desc.scratchpad_desc()) {}

  size_t scratch_bytes() const override { return scratchpad_.get_size(); }

  absl::Status Run(const float* x, const std::byte* packed, std::byte* scratch,
                   float* out) const override {
    SingleThreaded single_threaded;
    try {
      // oneDNN takes all handles as writable; it writes to out and scratch only.
      std::unordered_map<int, dnnl::memory> arguments{
          {DNNL_ARG_SRC, {x_, engine_, const_cast<float*>(x)}},
          {DNNL_ARG_WEIGHTS, {weights_, engine_, const_cast<std::byte*>(packed)}},
          {DNNL_ARG_DST, {out_, engine_, out}}};
      if (scratchpad_.get_size() > 0) {
        arguments[DNNL_ARG_SCRATCHPAD] = dnnl::memory(scratchpad_, engine_, scratch);
      }
      // Streams carry no state on CPUs, and this one is used by several threads at once.
      matmul_.execute(stream_, arguments);
    } catch (const dnnl::error& error) {
      return FromDnnl(error, n_, k_);
    }
    return absl::OkStatus();
  }

 private:
  dnnl::engine engine_;
  int64_t n_, k_;
  dnnl::stream stream_;
  dnnl::matmul matmul_;
  Md x_, weights_, out_, scratchpad_;
};

}  // namespace

struct GemmPlans::Impl {
  struct Packing {
    Md packed;
    Md scratchpad;
    dnnl::reorder reorder;
  };

  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  std::map<std::pair<int64_t, int64_t>, Packing> packings;  // by (n, k)
  std::map<GemmShape, std::shared_ptr<const GemmPlan>> plans;

  const Packing& FindPacking(int64_t n, int64_t k) {
    if (const auto it = packings.find({n, k}); it != packings.end()) return it->second;
    const Md any({k, n}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::any);
    const GemmShape typical{.rows = kTypicalRows, .n = n, .k = k};
    const Md packed = MakeMatmul(engine, typical, any).weights_desc();
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::reorder::primitive_desc reorder(engine, PlainMd(k, n, 1, k), engine, packed,
                                                attributes);
    return packings
        .emplace(std::pair{n, k},
                 Packing{packed, reorder.scratchpad_desc(), dnnl::reorder(reorder)})
        .first->second;
  }
};

GemmPlans::GemmPlans() : impl_(std::make_unique<Impl>()) {}
GemmPlans::~GemmPlans() = default;

absl::StatusOr<std::shared_ptr<const GemmPlan>> GemmPlans::Find(const GemmShape& shape) {
  if (const auto it = impl_->plans.find(shape); it != impl_->plans.end()) return it->second;
  SingleThreaded single_threaded;
  try {
    const Md& packed = impl_->FindPacking(shape.n, shape.k).packed;
    if (impl_->plans.size() >= kMaxPlans) impl_->plans.clear();
    auto plan = std::make_shared<const DnnlPlan>(impl_->engine, shape,
                                                 MakeMatmul(impl_->engine, shape, packed));
    impl_->plans.emplace(shape, plan);
    return plan;
  } catch (const dnnl::error& error) {
    return FromDnnl(error, shape.n, shape.k);
  }
}

absl::StatusOr<size_t> GemmPlans::PackedBytes(int64_t n, int64_t k) {
  SingleThreaded single_threaded;
  try {
    return impl_->FindPacking(n, k).packed.get_size();
  } catch (const dnnl::error& error) {
    return FromDnnl(error, n, k);
  }
}

absl::Status GemmPlans::Pack(int64_t n, int64_t k, const float* weight, std::byte* packed) const {
  const auto it = impl_->packings.find({n, k});
  FOVEA_CHECK(it != impl_->packings.end());
  SingleThreaded single_threaded;
  try {
    dnnl::stream stream(impl_->engine);
    dnnl::memory from(PlainMd(k, n, 1, k), impl_->engine, const_cast<float*>(weight));
    dnnl::memory to(it->second.packed, impl_->engine, packed);
    // Empty for the usual layouts; oneDNN allocates it where it is not.
    dnnl::memory scratchpad(it->second.scratchpad, impl_->engine);
    it->second.reorder.execute(
        stream, {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}, {DNNL_ARG_SCRATCHPAD, scratchpad}});
  } catch (const dnnl::error& error) {
    return FromDnnl(error, n, k);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
