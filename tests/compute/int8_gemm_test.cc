#include "compute/cpu/int8_gemm.h"

#include <algorithm>
#include <vector>

#include "compute/cpu/aligned_array.h"
#include "compute/linear.h"
#include "tests/compute/only_target.h"
#include "tests/compute/op_test.h"

namespace fovea::compute::cpu {
namespace {

struct Shape {
  int64_t n_rows, n_features, k;
};

// Tiles and parts of them; panels and parts; groups, parts, and a k that is no multiple of four.
std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  for (const int64_t k : {1, 3, 64, 67, 95, 96, 97, 191, 192, 576, 1000}) {
    for (const auto& [n_rows, n_features] :
         {std::pair<int64_t, int64_t>{1, 64}, {6, 1}, {13, 17}, {4, 48}, {11, 63}}) {
      shapes.push_back({n_rows, n_features, k});
    }
  }
  return shapes;
}

// A problem of one panel; out holds what is there before.
struct Panel {
  Shape shape;
  std::vector<float> x, weight, bias, out;
  AlignedBytes packed, rows_memory;
  Int8Rows rows;

  explicit Panel(const Shape& s) : shape(s) {
    x = RandomFloats(static_cast<size_t>(s.n_rows * s.k), 1);
    // Outliers, as hidden states have them.
    for (size_t i = 0; i < x.size(); i += 37) x[i] *= 40.0f;
    weight = RandomFloats(static_cast<size_t>(s.n_features * s.k), 2, 0.1f);
    bias = RandomFloats(static_cast<size_t>(s.n_features), 3);
    out = RandomFloats(static_cast<size_t>(s.n_rows * s.n_features), 4);
    packed = AllocateAligned(Int8PanelBytes(s.k));
    PackInt8Panel(weight.data(), s.n_features, s.k, packed.get());
    rows_memory = AllocateAligned(Int8RowsBytes(s.n_rows, s.k));
    rows = MakeInt8Rows(s.n_rows, s.k, rows_memory.get());
    QuantizeInt8Rows(x.data(), 0, s.n_rows, rows);
  }
  Int8Product Product(bool has_bias, bool add_to_out, std::vector<float>* result) const {
    *result = out;
    return {.rows = &rows,
            .panel = packed.get(),
            .n_features = shape.n_features,
            .bias = has_bias ? bias.data() : nullptr,
            .add_to_out = add_to_out,
            .out = result->data(),
            .out_stride = shape.n_features};
  }
};

TEST(Int8GemmTest, IsWithinTheRoundingOfBothFactors) {
  for (const Shape& s : Shapes()) {
    const Panel panel(s);
    for (const bool has_bias : {false, true}) {
      for (const bool add_to_out : {false, true}) {
        std::vector<float> out;
        MultiplyInt8(panel.Product(has_bias, add_to_out, &out), 0, s.n_rows);
        std::vector<double> expected, tolerance;
        for (int64_t row = 0; row < s.n_rows; ++row) {
          for (int64_t f = 0; f < s.n_features; ++f) {
            double sum = has_bias ? panel.bias[static_cast<size_t>(f)] : 0.0;
            if (add_to_out) sum += panel.out[static_cast<size_t>(row * s.n_features + f)];
            // Each factor errs by at most half of its group's step, the largest magnitude / 127.
            double error = 0.0;
            for (int64_t first = 0; first < s.k; first += kInt8Group) {
              const int64_t n = std::min(kInt8Group, s.k - first);
              const float* x = panel.x.data() + row * s.k + first;
              const float* w = panel.weight.data() + f * s.k + first;
              double x_step = 0.0, w_step = 0.0;
              for (int64_t i = 0; i < n; ++i) {
                x_step = std::max(x_step, std::abs(x[i]) / 127.0);
                w_step = std::max(w_step, std::abs(w[i]) / 127.0);
              }
              for (int64_t i = 0; i < n; ++i) {
                sum += static_cast<double>(x[i]) * w[i];
                error +=
                    std::abs(x[i]) * w_step / 2 + std::abs(w[i]) * x_step / 2 + x_step * w_step / 4;
              }
            }
            expected.push_back(sum);
            tolerance.push_back(error * 1.001 + kEpsilon * 16 * (std::abs(sum) + 1.0));
          }
        }
        ExpectClose(out, expected, tolerance,
                    StrCat(s.n_rows, " x ", s.n_features, " x ", s.k, " bias ", has_bias, " add ",
                           add_to_out));
      }
    }
  }
}

// Whether a product and a sum are rounded once, as MultiplyInt8Plain rounds them.
bool RoundsOnce([[maybe_unused]] int64_t target) {
#if defined(__x86_64__)
  return target <= HWY_AVX2 || target == HWY_SCALAR;  // better ones have lower numbers
#else
  return true;
#endif
}

// The sum of the magnitudes of everything that is added up in each element of `out`.
std::vector<double> Magnitudes(const Panel& panel, const Int8Product& p,
                               const std::vector<float>& out) {
  const Shape& s = panel.shape;
  std::vector<double> magnitudes(out.begin(), out.end());
  for (int64_t row = 0; row < s.n_rows; ++row) {
    for (int64_t f = 0; f < s.n_features; ++f) {
      double& sum = magnitudes[static_cast<size_t>(row * p.out_stride + f)];
      sum = std::abs(sum) + std::abs(panel.bias[static_cast<size_t>(f)]);
      for (int64_t i = 0; i < s.k; ++i) {
        sum += std::abs(static_cast<double>(panel.x[static_cast<size_t>(row * s.k + i)]) *
                        panel.weight[static_cast<size_t>(f * s.k + i)]);
      }
    }
  }
  return magnitudes;
}

TEST(Int8GemmTest, InstructionSetsChangeNoBitButWhereTheyRoundTwice) {
  std::vector<int64_t> row_counts{16, 17, 35, 96, 97, 209};  // with those of whole and split tiles
  for (int64_t n_rows = 1; n_rows <= 13; ++n_rows) row_counts.push_back(n_rows);
  for (const int64_t k : {1, 3, 64, 67, 95, 97, 191, 192, 580}) {
    for (const int64_t n_rows : row_counts) {
      for (const int64_t n_features : {1, 47, 64}) {
        const Panel panel({n_rows, n_features, k});
        for (const int options : {0, 1, 2, 3}) {
          SCOPED_TRACE(StrCat(n_rows, " x ", n_features, " x ", k, " options ", options));
          std::vector<float> out;
          Int8Product product = panel.Product((options & 1) != 0, (options & 2) != 0, &out);
          // What lies between the rows stays as it is.
          product.out_stride = n_features + 5;
          const std::vector<float> before =
              RandomFloats(static_cast<size_t>(n_rows * product.out_stride), 5);
          const auto multiply = [&](auto function) {
            out = before;
            product.out = out.data();
            function(product, 0, n_rows);
            return out;
          };
          const std::vector<float> plain = multiply(MultiplyInt8Plain);
          std::vector<double> tolerance;
          WithEachInstructionSet([&](int64_t target) {
            const std::vector<float> here = multiply(MultiplyInt8);
            if (RoundsOnce(target)) {
              EXPECT_EQ(here, plain);
              return;
            }
            if (tolerance.empty()) {
              tolerance = Magnitudes(panel, product, before);
              for (double& t : tolerance) {
                t *= kEpsilon * static_cast<double>(panel.rows.n_groups);
              }
            }
            ExpectClose(here, {plain.begin(), plain.end()}, tolerance);
          });
          if (HasFailure()) return;  // once is enough
        }
      }
    }
  }
}

TEST(Int8GemmTest, InstructionSetsQuantiseAlike) {
  for (const int64_t k : {1, 3, 95, 192, 580}) {
    const Panel panel({3, 1, k});
    const auto n = static_cast<size_t>(3 * panel.rows.n_groups);
    WithEachInstructionSet([&](int64_t) {
      AlignedBytes memory = AllocateAligned(Int8RowsBytes(3, k));
      const Int8Rows rows = MakeInt8Rows(3, k, memory.get());
      QuantizeInt8Rows(panel.x.data(), 0, 3, rows);
      EXPECT_TRUE(std::equal(rows.values, rows.values + 3 * rows.stride, panel.rows.values)) << k;
      EXPECT_TRUE(std::equal(rows.scales, rows.scales + n, panel.rows.scales)) << k;
      EXPECT_TRUE(std::equal(rows.starts, rows.starts + n, panel.rows.starts)) << k;
    });
  }
}

TEST(Int8GemmTest, ARowDoesNotDependOnThoseBesideIt) {
  constexpr int64_t kRows = 109;
  const Panel panel({kRows, 40, 300});
  WithEachInstructionSet([&](int64_t) {
    std::vector<float> together, apart;
    MultiplyInt8(panel.Product(true, false, &together), 0, kRows);
    const Int8Product product = panel.Product(true, false, &apart);
    for (int64_t row = 0; row < kRows; ++row) MultiplyInt8(product, row, row + 1);
    EXPECT_EQ(together, apart);
  });
}

TEST(Int8GemmTest, IntegersAreExact) {
  const Shape s{7, 20, 400};
  Panel panel(s);
  // With 127 in each group the scale is 1, and nothing is rounded.
  for (int64_t i = 0; i < s.n_rows * s.k; ++i) {
    panel.x[static_cast<size_t>(i)] =
        i % s.k % kInt8Group == 0 ? 127.0f : static_cast<float>(i * 31 % 255 - 127);
  }
  for (int64_t i = 0; i < s.n_features * s.k; ++i) {
    panel.weight[static_cast<size_t>(i)] =
        i % s.k % kInt8Group == 1 ? -127.0f : static_cast<float>(i * 17 % 255 - 127);
  }
  PackInt8Panel(panel.weight.data(), s.n_features, s.k, panel.packed.get());
  QuantizeInt8Rows(panel.x.data(), 0, s.n_rows, panel.rows);
  std::vector<float> expected;
  for (int64_t row = 0; row < s.n_rows; ++row) {
    for (int64_t f = 0; f < s.n_features; ++f) {
      float sum = 0.0f;  // below 2²⁴: exact
      for (int64_t i = 0; i < s.k; ++i) {
        sum += panel.x[static_cast<size_t>(row * s.k + i)] *
               panel.weight[static_cast<size_t>(f * s.k + i)];
      }
      expected.push_back(sum);
    }
  }
  WithEachInstructionSet([&](int64_t) {
    std::vector<float> out;
    MultiplyInt8(panel.Product(false, false, &out), 0, s.n_rows);
    EXPECT_EQ(out, expected);
  });
}

TEST(Int8GemmTest, ZerosGiveZerosAndWhatIsNotFiniteStaysSo) {
  const Shape s{3, 5, 200};
  Panel panel(s);
  std::fill(panel.x.begin(), panel.x.begin() + s.k, 0.0f);
  panel.x[static_cast<size_t>(s.k + 7)] = std::numeric_limits<float>::infinity();
  panel.x[static_cast<size_t>(2 * s.k + 199)] = std::numeric_limits<float>::quiet_NaN();
  WithEachInstructionSet([&](int64_t) {
    QuantizeInt8Rows(panel.x.data(), 0, s.n_rows, panel.rows);
    std::vector<float> out;
    MultiplyInt8(panel.Product(false, false, &out), 0, s.n_rows);
    for (size_t f = 0; f < 5; ++f) {
      EXPECT_EQ(out[f], 0.0f);
      EXPECT_FALSE(std::isfinite(out[5 + f]));
      EXPECT_FALSE(std::isfinite(out[10 + f]));
    }
  });
}

struct LinearProblem {
  std::vector<float> weight, bias, x, lora_a, lora_b;
  LinearWeights weights;

  LinearProblem(int64_t n_tokens, int64_t in, int64_t out) {
    weight = RandomFloats(static_cast<size_t>(in * out), 1, 0.1f);
    bias = RandomFloats(static_cast<size_t>(out), 2);
    x = RandomFloats(static_cast<size_t>(n_tokens * in), 3);
    lora_a = RandomFloats(static_cast<size_t>(4 * in), 4, 0.1f);
    lora_b = RandomFloats(static_cast<size_t>(out * 4), 5, 0.1f);
    weights = {.name = "test",
               .weight = {weight.data(), {out, in}},
               .bias = {bias.data(), {out}},
               .lora_a = {lora_a.data(), {4, in}},
               .lora_b = {lora_b.data(), {out, 4}},
               .lora_scale = 2.0f};
  }
  std::vector<float> Compute(Device& device, int64_t n_tokens) const {
    const auto linear = Linear::Create(device, weights);
    EXPECT_TRUE(linear.ok()) << linear.status();
    const int64_t out_features = weights.weight.dim(0);
    std::vector<float> out(static_cast<size_t>(n_tokens * out_features), 1.0f);
    const absl::Status status =
        (*linear)->Forward(device, {x.data(), {n_tokens, weights.weight.dim(1)}}, true,
                           {out.data(), {n_tokens, out_features}});
    EXPECT_TRUE(status.ok()) << status;
    return out;
  }
};

TEST(Int8LinearTest, IsCloseToFloat32AndIndependentOfThreadsAndMemory) {
  for (const int64_t n_tokens : {40, 130}) {
    const LinearProblem problem(n_tokens, 300, 700);
    const auto float32 = *Device::Create("cpu", 2, "float32");
    const std::vector<float> exact = problem.Compute(*float32, n_tokens);
    double power = 0.0;
    for (const float value : exact) power += static_cast<double>(value) * value;
    std::vector<float> first;
    for (const int n_threads : {1, 2, 5}) {
      for (const bool has_room : {true, false}) {
        const auto device = *Device::Create("cpu", n_threads, "int8");
        if (!has_room) device->packed_weights()->set_limit_bytes(1000);
        const std::vector<float> out = problem.Compute(*device, n_tokens);
        if (first.empty()) first = out;
        EXPECT_EQ(out, first) << n_threads << " threads, room " << has_room;
        double error = 0.0;
        for (size_t i = 0; i < out.size(); ++i) {
          error +=
              (static_cast<double>(out[i]) - exact[i]) * (static_cast<double>(out[i]) - exact[i]);
        }
        // Rounding steps of 1/127 of about three deviations are errors of about a hundredth.
        EXPECT_GT(error, 0.0) << "not in 8 bits";
        EXPECT_LT(std::sqrt(error / power), 0.02);
      }
    }
  }
}

TEST(Int8LinearTest, TakesAByteAWeightAndGivesItBack) {
  const LinearProblem problem(40, 576, 576);
  const auto device = *Device::Create("cpu", 2, "int8");
  {
    const auto linear = *Linear::Create(*device, problem.weights);
    std::vector<float> out(static_cast<size_t>(40 * 576));
    ASSERT_TRUE(
        linear->Forward(*device, {problem.x.data(), {40, 576}}, false, {out.data(), {40, 576}})
            .ok());
    EXPECT_GE(device->packed_weights()->used_bytes(), 576u * 576u);
    EXPECT_LE(device->packed_weights()->used_bytes(), 576u * 576u * 11 / 10);
  }
  EXPECT_EQ(device->packed_weights()->used_bytes(), 0u);
}

TEST(Int8LinearTest, Float32OnlyStaysSo) {
  LinearProblem problem(40, 100, 70);
  problem.weights.float32_only = true;
  const auto int8 = *Device::Create("cpu", 2, "int8");
  const auto float32 = *Device::Create("cpu", 2, "float32");
  EXPECT_EQ(problem.Compute(*int8, 40), problem.Compute(*float32, 40));
}

TEST(PrecisionTest, IsWhatWasAskedFor) {
  EXPECT_EQ((*Device::Create("cpu", 1))->precision(), Precision::kFloat32);
  EXPECT_EQ((*Device::Create("cpu", 1, "int8"))->precision(), Precision::kInt8);
  const Precision chosen = (*Device::Create("cpu", 1, "auto"))->precision();
  EXPECT_EQ((*Device::Create("cpu", 1, "auto"))->precision(), chosen);
  if (!HasInt8Kernel()) {
    EXPECT_EQ(chosen, Precision::kFloat32);
  }
  const auto device = Device::Create("cpu", 1, "int4");
  EXPECT_TRUE(absl::IsInvalidArgument(device.status()));
  EXPECT_THAT(std::string(device.status().message()), testing::HasSubstr("'int4'"));
}

}  // namespace
}  // namespace fovea::compute::cpu
