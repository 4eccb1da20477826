#include "compute/linear.h"

#include <cstring>
#include <thread>
#include <tuple>

#include "base/float16.h"
#include "compute/rms_norm.h"
#include "compute/silu_mul.h"
#include "tests/compute/op_test.h"
#include "tests/compute/quantize.h"

namespace fovea::compute {
namespace {

struct Problem {
  DType dtype;
  int64_t n_tokens;
  int64_t in_features;
  int64_t out_features;
  int64_t lora_rank;  // 0: none
  bool has_bias;
  bool add_to_out;
};

struct Data {
  std::vector<std::byte> weight;
  std::vector<float> x, bias, lora_a, lora_b, out;
  LinearWeights weights;  // of the host's memory
};

// The same weights in memory of the device, in which a CPU has them without a copy.
struct DeviceWeights {
  DeviceWeights(Device& device, const LinearWeights& host) : weights(host) {
    for (ConstView* view : {&weights.weight, &weights.bias, &weights.lora_a, &weights.lora_b}) {
      if (view->is_none()) continue;
      const DTypeTraits& traits = Traits(view->dtype());
      auto buffer = device.UploadConstant(
          view->data(), static_cast<size_t>(view->size() / traits.block_size * traits.block_bytes));
      EXPECT_TRUE(buffer.ok()) << buffer.status();
      buffers.push_back(*std::move(buffer));
      const void* const data = buffers.back().data<void>();
      *view = view->rank() == 1 ? ConstView(view->dtype(), data, {view->dim(0)})
                                : ConstView(view->dtype(), data, {view->dim(0), view->dim(1)});
    }
  }
  std::vector<Buffer> buffers;
  LinearWeights weights;
};

Data MakeData(const Problem& p) {
  Data data;
  const auto n_weights = static_cast<size_t>(p.in_features * p.out_features);
  data.weight = Quantize(p.dtype, RandomFloats(n_weights, 1, 0.1f));
  data.x = RandomFloats(static_cast<size_t>(p.n_tokens * p.in_features), 2);
  data.bias = RandomFloats(static_cast<size_t>(p.out_features), 3);
  data.lora_a = RandomFloats(static_cast<size_t>(p.lora_rank * p.in_features), 4, 0.1f);
  data.lora_b = RandomFloats(static_cast<size_t>(p.out_features * p.lora_rank), 5, 0.1f);
  data.out = RandomFloats(static_cast<size_t>(p.n_tokens * p.out_features), 6);
  data.weights = {.name = "blk.0.test.weight",
                  .weight = {p.dtype, data.weight.data(), {p.out_features, p.in_features}}};
  if (p.has_bias) data.weights.bias = {data.bias.data(), {p.out_features}};
  if (p.lora_rank > 0) {
    data.weights.lora_a = {data.lora_a.data(), {p.lora_rank, p.in_features}};
    data.weights.lora_b = {data.lora_b.data(), {p.out_features, p.lora_rank}};
    data.weights.lora_scale = 2.0f;
  }
  return data;
}

struct Expected {
  std::vector<double> out;
  std::vector<double> tolerance;
};

// The sum of n products in float errs by at most n·epsilon·Σ|products|, in practice by about
// sqrt(n)·epsilon of it; 4 covers the LoRA's second sum and the offsets of Q4 blocks, whose
// products (q up to 15 times the scale) are larger than those of the values they make up. Few rows
// are rounded to 15 bits for quantised weights: independent errors of a uniform distribution, of
// which six deviations are allowed.
Expected Reference(const Problem& p, const Data& data) {
  const size_t row_bytes = *RowBytes(p.dtype, p.in_features);
  const auto k = static_cast<size_t>(p.in_features);
  const auto n = static_cast<size_t>(p.out_features);
  const auto rank = static_cast<size_t>(p.lora_rank);
  std::vector<float> row(k);
  Expected expected;
  expected.out.resize(data.out.size());
  expected.tolerance.resize(data.out.size());
  for (size_t o = 0; o < n; ++o) {
    DequantizeRow(p.dtype, data.weight.data() + o * row_bytes, p.in_features, row.data());
    float largest = 0.0f;
    for (const float value : row) largest = std::max(largest, std::abs(value));
    for (size_t t = 0; t < static_cast<size_t>(p.n_tokens); ++t) {
      double sum = 0.0;
      double magnitude = 0.0;
      double rounding_variance = 0.0;
      double step = 0.0;
      for (size_t i = 0; i < k; ++i) {
        double w = row[i];
        if (Traits(p.dtype).block_size > 1) {
          if (i % 32 == 0) {
            double block_largest = 0.0;
            for (size_t j = i; j < i + 32; ++j) {
              block_largest = std::max<double>(block_largest, std::abs(data.x[t * k + j]));
            }
            step = block_largest / (127 * 128);
          }
          rounding_variance += w * w * step * step / 12.0;
        }
        double w_magnitude = 2.0 * largest;
        for (size_t r = 0; r < rank; ++r) {
          const double update = static_cast<double>(data.weights.lora_scale) *
                                data.lora_b[o * rank + r] * data.lora_a[r * k + i];
          w += update;
          w_magnitude += std::abs(update);
        }
        sum += w * data.x[t * k + i];
        magnitude += w_magnitude * std::abs(data.x[t * k + i]);
      }
      if (p.has_bias) sum += data.bias[o];
      if (p.add_to_out) sum += data.out[t * n + o];
      expected.out[t * n + o] = sum;
      expected.tolerance[t * n + o] = kEpsilon * (4.0 * std::sqrt(static_cast<double>(k)) /
                                                      static_cast<double>(k) * 4.0 * magnitude +
                                                  4.0 * std::abs(sum) + 4.0) +
                                      6.0 * std::sqrt(rounding_variance);
    }
  }
  return expected;
}

class LinearTest : public testing::TestWithParam<std::tuple<std::string, DType>> {};

std::string ParamName(const testing::TestParamInfo<LinearTest::ParamType>& info) {
  return StrCat(std::get<0>(info.param), "_", Traits(std::get<1>(info.param)).name);
}

std::vector<float> Compute(Device& device, const Linear& linear, const Problem& p,
                           const Data& data) {
  const Buffer x = ToDevice(device, data.x);
  const Buffer out = ToDevice(device, data.out);
  const absl::Status status =
      linear.Forward(device, {x.data<float>(), {p.n_tokens, p.in_features}}, p.add_to_out,
                     {out.data<float>(), {p.n_tokens, p.out_features}});
  EXPECT_TRUE(status.ok()) << status;
  return ToHost(device, out, data.out.size());
}

// shapes: [in, out].
void ExpectDoublePrecision(Device& device, DType dtype,
                           const std::vector<std::pair<int64_t, int64_t>>& shapes,
                           const std::vector<int64_t>& numbers_of_tokens) {
  for (const auto& [in_features, out_features] : shapes) {
    if (in_features % Traits(dtype).block_size != 0) continue;
    for (const int64_t n_tokens : numbers_of_tokens) {
      // Every combination of the options appears; not each with each size.
      const int64_t code = in_features + out_features + n_tokens;
      const Problem p{.dtype = dtype,
                      .n_tokens = n_tokens,
                      .in_features = in_features,
                      .out_features = out_features,
                      .lora_rank = code % 3 == 0 ? 5 : 0,
                      .has_bias = code % 2 == 0,
                      .add_to_out = code % 5 < 2};
      SCOPED_TRACE(
          StrCat("[", out_features, ",", in_features, "] x ", n_tokens, " rank ", p.lora_rank));
      const Data data = MakeData(p);
      const Expected expected = Reference(p, data);
      for (const bool is_exact : {false, true}) {
        device.set_exact(is_exact);
        const DeviceWeights on_device(device, data.weights);
        const auto linear = Linear::Create(device, on_device.weights);
        ASSERT_TRUE(linear.ok()) << linear.status();
        ExpectClose(Compute(device, **linear, p, data), expected.out, expected.tolerance);
        (*linear)->PrepareSteps(device);
        ExpectClose(Compute(device, **linear, p, data), expected.out, expected.tolerance,
                    "with prepared steps");
      }
    }
  }
}

TEST_P(LinearTest, AgreesWithDoublePrecision) {
  const auto& [spec, dtype] = GetParam();
  MAKE_DEVICE_OR_SKIP(device, spec, 2);
  // One block; more than a panel; more blocks than are converted at once; rows that are no whole
  // number of vectors or blocks; whole tiles of 16 rows.
  ExpectDoublePrecision(*device, dtype,
                        {{32, 17},
                         {576, 600},
                         {2080, 1},
                         {2112, 20},
                         {67, 33},
                         {5, 2},
                         {256, 19},
                         {2304, 37},
                         {96, 64},
                         {1536, 176},
                         {256, 16}},
                        {1, 2, 3, 4, 7, 12, 13, 32, 33, 130});
}

// Few enough for a tool that follows every access (compute-sanitizer --tool racecheck).
TEST_P(LinearTest, SmallProductsAgreeWithDoublePrecision) {
  const auto& [spec, dtype] = GetParam();
  MAKE_DEVICE_OR_SKIP(device, spec, 2);
  ExpectDoublePrecision(*device, dtype, {{96, 64}, {256, 19}, {2304, 37}}, {1, 3, 13, 33});
}

TEST_P(LinearTest, ResultDoesNotDependOnTheNumberOfThreads) {
  const auto& [spec, dtype] = GetParam();
  for (const int64_t n_tokens : {1, 5, 13, 100}) {
    const Problem p{.dtype = dtype,
                    .n_tokens = n_tokens,
                    .in_features = 768,
                    .out_features = 700,
                    .lora_rank = 4,
                    .has_bias = true,
                    .add_to_out = false};
    const Data data = MakeData(p);
    std::vector<float> of_one_thread;
    for (const int n_threads : {1, 2, 5}) {
      MAKE_DEVICE_OR_SKIP(device, spec, n_threads);
      const DeviceWeights on_device(*device, data.weights);
      const auto linear = Linear::Create(*device, on_device.weights);
      ASSERT_TRUE(linear.ok()) << linear.status();
      const std::vector<float> out = Compute(*device, **linear, p, data);
      if (n_threads == 1) of_one_thread = out;
      EXPECT_EQ(out, of_one_thread) << n_threads << " threads, " << n_tokens << " tokens";
    }
  }
}

TEST_P(LinearTest, WithoutRoomForPackedWeightsTheResultIsTheSame) {
  const auto& [spec, dtype] = GetParam();
  const Problem p{.dtype = dtype,
                  .n_tokens = 100,
                  .in_features = 768,
                  .out_features = 1300,
                  .lora_rank = 4,
                  .has_bias = true,
                  .add_to_out = true};
  const Data data = MakeData(p);
  MAKE_DEVICE_OR_SKIP(device, spec, 2);
  const DeviceWeights on_device(*device, data.weights);
  std::vector<float> packed;
  {
    const auto linear = Linear::Create(*device, on_device.weights);
    ASSERT_TRUE(linear.ok()) << linear.status();
    packed = Compute(*device, **linear, p, data);
    EXPECT_GE(device->packed_weights()->used_bytes(), 768u * 1300u * sizeof(float));
  }
  EXPECT_EQ(device->packed_weights()->used_bytes(), 0u) << "not given back";
  device->packed_weights()->set_limit_bytes(1000);
  const auto linear = Linear::Create(*device, on_device.weights);
  ASSERT_TRUE(linear.ok()) << linear.status();
  EXPECT_EQ(Compute(*device, **linear, p, data), packed);
  EXPECT_EQ(device->packed_weights()->used_bytes(), 0u);
}

TEST_P(LinearTest, WeightsThatKeepNoCopyTakeNoRoom) {
  const auto& [spec, dtype] = GetParam();
  const Problem p{.dtype = dtype,
                  .n_tokens = 100,
                  .in_features = 768,
                  .out_features = 1300,
                  .lora_rank = 4,
                  .has_bias = true,
                  .add_to_out = true};
  const Data data = MakeData(p);
  MAKE_DEVICE_OR_SKIP(device, spec, 2);
  DeviceWeights on_device(*device, data.weights);
  on_device.weights.keeps_copy = false;
  const auto linear = Linear::Create(*device, on_device.weights);
  ASSERT_TRUE(linear.ok()) << linear.status();
  const Expected expected = Reference(p, data);
  ExpectClose(Compute(*device, **linear, p, data), expected.out, expected.tolerance);
  EXPECT_EQ(device->packed_weights()->used_bytes(), 0u);
}

TEST_P(LinearTest, StepsNeedTheStoredWeightsNoMoreThanOnce) {
  const auto& [spec, dtype] = GetParam();
  if (spec != "cpu") GTEST_SKIP() << "weights lie where reading is fast already";
  const Problem p{.dtype = dtype,
                  .n_tokens = 1,
                  .in_features = 512,
                  .out_features = 96,
                  .lora_rank = 3,
                  .has_bias = true,
                  .add_to_out = true};
  Data data = MakeData(p);
  MAKE_DEVICE_OR_SKIP(device, spec, 2);
  const DeviceWeights on_device(*device, data.weights);
  const auto linear = Linear::Create(*device, on_device.weights);
  ASSERT_TRUE(linear.ok()) << linear.status();
  const std::vector<float> first = Compute(*device, **linear, p, data);
  std::fill(data.weight.begin(), data.weight.end(), std::byte{1});
  EXPECT_EQ(Compute(*device, **linear, p, data), first) << "a copy lies where reading is fast";
}

// Both factors are rounded, the low-rank update merged before; products and sums are as exact as in
// float32.
TEST(LinearBFloat16Test, ManyRowsAreProductsOfRoundedFactors) {
  MAKE_DEVICE_OR_SKIP(device, "cuda", 1);
  device->set_precision(Precision::kBFloat16);
  for (const DType dtype : kAllDTypes) {
    for (const int64_t n_tokens : {9, 64, 200}) {
      const Problem p{.dtype = dtype,
                      .n_tokens = n_tokens,
                      .in_features = 512,
                      .out_features = 333,
                      .lora_rank = n_tokens == 64 ? 5 : 0,
                      .has_bias = n_tokens == 9,
                      .add_to_out = n_tokens == 200};
      SCOPED_TRACE(StrCat(Traits(dtype).name, " x ", n_tokens));
      const Data data = MakeData(p);
      const DeviceWeights on_device(*device, data.weights);
      const auto linear = Linear::Create(*device, on_device.weights);
      ASSERT_TRUE(linear.ok()) << linear.status();
      const std::vector<float> out = Compute(*device, **linear, p, data);
      std::vector<float> row(static_cast<size_t>(p.in_features));
      std::vector<double> expected(out.size()), tolerance(out.size());
      const size_t row_bytes = *RowBytes(dtype, p.in_features);
      for (int64_t o = 0; o < p.out_features; ++o) {
        DequantizeRow(dtype, data.weight.data() + static_cast<size_t>(o) * row_bytes, p.in_features,
                      row.data());
        for (int64_t i = 0; i < p.in_features; ++i) {
          double w = row[i];
          for (int64_t r = 0; r < p.lora_rank; ++r) {
            w += static_cast<double>(data.weights.lora_scale) * data.lora_b[o * p.lora_rank + r] *
                 data.lora_a[r * p.in_features + i];
          }
          row[i] = static_cast<float>(BFloat16(static_cast<float>(w)));
        }
        for (int64_t t = 0; t < n_tokens; ++t) {
          double sum = 0.0, magnitude = 0.0, step = 0.0;  // step: of the largest product
          for (int64_t i = 0; i < p.in_features; ++i) {
            const double product = static_cast<double>(row[i]) *
                                   static_cast<float>(BFloat16(data.x[t * p.in_features + i]));
            sum += product;
            magnitude += std::abs(product);
            // Merged weights may lie on the other side of a tie: a few of a row.
            if (p.lora_rank > 0) step = std::max(step, 3.0 * std::abs(product) * 0x1p-8);
          }
          if (p.has_bias) sum += data.bias[o];
          if (p.add_to_out) sum += data.out[t * p.out_features + o];
          expected[t * p.out_features + o] = sum;
          tolerance[t * p.out_features + o] =
              kEpsilon * (32.0 * magnitude + 4.0 * std::abs(sum) + 4.0) + step;
        }
      }
      ExpectClose(out, expected, tolerance);
    }
  }
}

TEST_P(LinearTest, TogetherIsAsAlone) {
  const auto& [spec, dtype] = GetParam();
  MAKE_DEVICE_OR_SKIP(device, spec, 2);
  for (const int64_t n_tokens : {1, 5, 20, 40}) {
    std::vector<Problem> problems;
    std::vector<Data> data;
    for (const int64_t out_features : {300, 70, 71}) {
      problems.push_back({.dtype = dtype,
                          .n_tokens = n_tokens,
                          .in_features = 256,
                          .out_features = out_features,
                          .lora_rank = out_features == 70 ? 0 : 6,
                          .has_bias = out_features == 70,
                          .add_to_out = false});
      data.push_back(MakeData(problems.back()));
    }
    // One of another type.
    problems[1].dtype = dtype == DType::kQ8_0 ? DType::kF16 : DType::kQ8_0;
    data[1] = MakeData(problems[1]);
    const Buffer x = ToDevice(*device, data[0].x);
    std::vector<DeviceWeights> on_device;
    std::vector<std::unique_ptr<Linear>> linears;
    std::vector<Buffer> outs;
    std::vector<Linear::Output> outputs;
    for (size_t i = 0; i < problems.size(); ++i) {
      on_device.emplace_back(*device, data[i].weights);
      auto linear = Linear::Create(*device, on_device.back().weights);
      ASSERT_TRUE(linear.ok()) << linear.status();
      linears.push_back(*std::move(linear));
      outs.push_back(ToDevice(*device, data[i].out));
      outputs.push_back(
          {linears[i].get(), {outs[i].data<float>(), {n_tokens, problems[i].out_features}}});
    }
    const absl::Status status =
        Linear::ForwardTogether(*device, outputs, {x.data<float>(), {n_tokens, 256}});
    ASSERT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < problems.size(); ++i) {
      data[i].x = data[0].x;
      EXPECT_EQ(ToHost(*device, outs[i], data[i].out.size()),
                Compute(*device, *linears[i], problems[i], data[i]))
          << i << ", " << n_tokens << " tokens";
    }
  }
}

// Products of a normed row, and gated ones, are what the ops they stand for give, bit for bit.
TEST_P(LinearTest, NormedAndGatedProductsAreTheirPartsInOne) {
  const auto& [spec, dtype] = GetParam();
  MAKE_DEVICE_OR_SKIP(device, spec, 2);
  for (const int64_t n_tokens : {1, 2, 8, 20}) {
    for (const int64_t n_in : {512, 16384}) {
      constexpr int64_t kOut = 70;
      const std::vector<std::byte> gate_weight =
          Quantize(dtype, RandomFloats(static_cast<size_t>(n_in * kOut), 1, 0.05f));
      const std::vector<std::byte> up_weight =
          Quantize(dtype, RandomFloats(static_cast<size_t>(n_in * kOut), 2, 0.05f));
      const auto make = [&](const std::vector<std::byte>& weight, std::vector<Buffer>* buffers) {
        buffers->push_back(*device->UploadConstant(weight.data(), weight.size()));
        return *Linear::Create(
            *device,
            {.name = "test", .weight = {dtype, buffers->back().data<void>(), {kOut, n_in}}});
      };
      std::vector<Buffer> buffers;
      const auto gate = make(gate_weight, &buffers);
      const auto up = make(up_weight, &buffers);
      const auto n_out = static_cast<size_t>(n_tokens * kOut);
      const Buffer x =
          ToDevice(*device, RandomFloats(static_cast<size_t>(n_tokens * n_in), 3, 2.0f));
      const Buffer weight = ToDevice(*device, RandomFloats(static_cast<size_t>(n_in), 4));
      const Buffer normed = *device->Allocate(static_cast<size_t>(n_tokens * n_in) * sizeof(float));
      const Buffer a = *device->Allocate(n_out * sizeof(float));
      const Buffer b = *device->Allocate(n_out * sizeof(float));
      const ConstView x_view(x.data<float>(), {n_tokens, n_in});
      const View normed_view(normed.data<float>(), {n_tokens, n_in});
      const Linear::Output outputs[] = {{gate.get(), {a.data<float>(), {n_tokens, kOut}}},
                                        {up.get(), {b.data<float>(), {n_tokens, kOut}}}};
      const Linear::Norm norm{{weight.data<float>(), {n_in}}, 1e-5f, normed_view};

      ASSERT_TRUE(RmsNorm(*device,
                          {.x = x_view, .weight = norm.weight, .out = normed_view, .eps = norm.eps})
                      .ok());
      ASSERT_TRUE(Linear::ForwardTogether(*device, outputs, normed_view).ok());
      const std::vector<float> expected_gate = ToHost(*device, a, n_out);
      const std::vector<float> expected_up = ToHost(*device, b, n_out);
      ASSERT_TRUE(
          SiluMul(*device, {.gate = outputs[0].out, .up = outputs[1].out, .out = outputs[0].out})
              .ok());
      const std::vector<float> expected_gated = ToHost(*device, a, n_out);

      SCOPED_TRACE(StrCat(Traits(dtype).name, ", ", n_tokens, " x ", n_in));
      ASSERT_TRUE(Linear::ForwardNormed(*device, outputs, x_view, norm).ok());
      EXPECT_EQ(ToHost(*device, a, n_out), expected_gate);
      EXPECT_EQ(ToHost(*device, b, n_out), expected_up);
      ASSERT_TRUE(Linear::ForwardGated(*device, outputs[0], outputs[1], x_view, norm).ok());
      EXPECT_EQ(ToHost(*device, a, n_out), expected_gated);
    }
  }
}

// Of many bytes of weights, as large models have, one row's products come to what they come to as
// one of two rows, bit for bit.
TEST_P(LinearTest, OneRowOfLargeWeightsIsAsAmongOthers) {
  const auto& [spec, dtype] = GetParam();
  if (spec == "cpu" || Traits(dtype).block_size > 1) {
    GTEST_SKIP() << "a kernel of their own have plain weights on a GPU";
  }
  MAKE_DEVICE_OR_SKIP(device, spec, 2);
  struct Shape {
    int64_t n_in;
    std::vector<int64_t> n_out;
  };
  // Rows that are no whole number of pieces; more of them than blocks, and fewer; long ones.
  for (const Shape& shape : std::vector<Shape>{
           {1536, {2600, 300, 301}}, {1280, {2100, 7}}, {8704, {330}}, {27648, {100}}}) {
    SCOPED_TRACE(StrCat(Traits(dtype).name, ", ", shape.n_in, " x ", shape.n_out[0]));
    const int64_t n_in = shape.n_in + 8;  // a warp's last chunks are not all lanes'
    const Buffer x = ToDevice(*device, RandomFloats(static_cast<size_t>(2 * n_in), 3, 2.0f));
    const Buffer weight = ToDevice(*device, RandomFloats(static_cast<size_t>(n_in), 4));
    const Buffer normed = *device->Allocate(static_cast<size_t>(2 * n_in) * sizeof(float));
    std::vector<Buffer> buffers, outs;
    std::vector<std::unique_ptr<Linear>> linears;
    for (size_t i = 0; i < shape.n_out.size(); ++i) {
      for (int gated = 0; gated < 2; ++gated) {
        const auto n = static_cast<size_t>(n_in * shape.n_out[i]);
        const std::vector<std::byte> stored =
            Quantize(dtype, RandomFloats(n, static_cast<uint32_t>(2 * i + 5 + gated), 0.05f));
        buffers.push_back(*device->UploadConstant(stored.data(), stored.size()));
        LinearWeights weights{
            .name = "test", .weight = {dtype, buffers.back().data<void>(), {shape.n_out[i], n_in}}};
        if (i == 1) {
          buffers.push_back(
              ToDevice(*device, RandomFloats(static_cast<size_t>(shape.n_out[i]), 9)));
          weights.bias = {buffers.back().data<float>(), {shape.n_out[i]}};
        }
        linears.push_back(*Linear::Create(*device, weights));
        outs.push_back(ToDevice(*device, RandomFloats(static_cast<size_t>(2 * shape.n_out[i]), 8)));
      }
    }
    // [product][row][feature] of all ways: together after a norm, added, gated.
    const auto compute = [&](int64_t row, int64_t n_rows) {
      const ConstView rows(x.data<float>() + row * n_in, {n_rows, n_in});
      const Linear::Norm norm{
          {weight.data<float>(), {n_in}}, 1e-5f, {normed.data<float>(), {n_rows, n_in}}};
      std::vector<std::vector<float>> results;
      const auto out = [&](size_t i) -> Linear::Output {
        return {linears[i].get(),
                {outs[i].data<float>() + row * shape.n_out[i / 2], {n_rows, shape.n_out[i / 2]}}};
      };
      const auto keep = [&](size_t i) {
        results.push_back(ToHost(*device, outs[i], static_cast<size_t>(2 * shape.n_out[i / 2])));
      };
      std::vector<Linear::Output> together;
      for (size_t i = 0; i < linears.size(); i += 2) together.push_back(out(i));
      EXPECT_TRUE(Linear::ForwardNormed(*device, together, rows, norm).ok());
      for (size_t i = 0; i < linears.size(); i += 2) keep(i);
      EXPECT_TRUE(linears[0]->Forward(*device, rows, true, out(0).out).ok());
      keep(0);
      EXPECT_TRUE(Linear::ForwardGated(*device, out(0), out(1), rows, norm).ok());
      keep(0);
      return results;
    };
    const auto expected = compute(0, 2);
    std::vector<std::vector<float>> first = compute(0, 1);
    const auto second = compute(1, 1);
    for (size_t i = 0; i < expected.size(); ++i) {
      const size_t half = expected[i].size() / 2;
      std::copy(second[i].begin() + static_cast<std::ptrdiff_t>(half), second[i].end(),
                first[i].begin() + static_cast<std::ptrdiff_t>(half));
      EXPECT_EQ(first[i], expected[i]) << "result " << i;
    }
  }
}

TEST_P(LinearTest, ValuesThatAreNotFiniteStaySo) {
  const auto& [spec, dtype] = GetParam();
  MAKE_DEVICE_OR_SKIP(device, spec, 1);
  for (const int64_t out_features : {3, 16}) {
    for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
      const Problem p{.dtype = dtype,
                      .n_tokens = 1,
                      .in_features = 256,
                      .out_features = out_features,
                      .lora_rank = 0,
                      .has_bias = false,
                      .add_to_out = false};
      Data data = MakeData(p);
      data.x[77] = bad;
      const DeviceWeights on_device(*device, data.weights);
      const auto linear = Linear::Create(*device, on_device.weights);
      ASSERT_TRUE(linear.ok()) << linear.status();
      for (const float value : Compute(*device, **linear, p, data)) {
        EXPECT_FALSE(std::isfinite(value));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, LinearTest,
                         testing::Combine(testing::Values("cpu", "cuda"),
                                          testing::ValuesIn(kAllDTypes)),
                         ParamName);

TEST(LinearCreateTest, RefusesARowThatIsNoWholeNumberOfBlocks) {
  MAKE_DEVICE_OR_SKIP(device, "cpu", 1);
  const std::vector<std::byte> weight(1000);
  const auto linear = Linear::Create(
      *device, {.name = "blk.3.attn_k.weight", .weight = {DType::kQ4_0, weight.data(), {2, 33}}});
  EXPECT_TRUE(absl::IsInvalidArgument(linear.status()));
  EXPECT_THAT(std::string(linear.status().message()),
              testing::AllOf(testing::HasSubstr("blk.3.attn_k.weight"), testing::HasSubstr("33")));
}

TEST(LinearSharedTest, SeveralThreadsMakeThePackedCopyOnce) {
  const Problem p{.dtype = DType::kQ4_1,
                  .n_tokens = 40,
                  .in_features = 320,
                  .out_features = 640,
                  .lora_rank = 0,
                  .has_bias = false,
                  .add_to_out = false};
  const Data data = MakeData(p);
  MAKE_DEVICE_OR_SKIP(maker, "cpu", 1);
  const auto linear = Linear::Create(*maker, data.weights);
  ASSERT_TRUE(linear.ok()) << linear.status();
  std::vector<std::vector<float>> outs(4);
  {
    std::vector<std::jthread> threads;
    for (auto& out : outs) {
      threads.emplace_back([&] {
        const auto device = Device::Create("cpu", 2);
        ASSERT_TRUE(device.ok());
        out = Compute(**device, **linear, p, data);
      });
    }
  }
  for (const auto& out : outs) EXPECT_EQ(out, outs[0]);
  const Expected expected = Reference(p, data);
  ExpectClose(outs[0], expected.out, expected.tolerance);
}

// Rounded by whoever made them, numbers give the very product that they give rounded here.
TEST(LinearPrecisionTest, TakesRoundedNumbersWhereItWouldRoundThem) {
  MAKE_DEVICE_OR_SKIP(device, "cuda", 1, "bfloat16");
  const Problem p{DType::kQ8_0, 50, 64, 96, 0, true, true};
  Data data = MakeData(p);
  const DeviceWeights weights(*device, data.weights);
  const auto linear = *Linear::Create(*device, weights.weights);
  EXPECT_TRUE(linear->TakesBFloat16(50));
  EXPECT_FALSE(linear->TakesBFloat16(1));
  std::vector<BFloat16> rounded;
  for (const float x : data.x) rounded.emplace_back(x);
  const Buffer x = ToDevice(*device, data.x);
  const Buffer rounded_x = ToDevice(*device, rounded);
  const ConstView xs[] = {{x.data<float>(), {50, 64}}, {rounded_x.data<BFloat16>(), {50, 64}}};
  std::vector<std::vector<float>> outs;
  for (const ConstView& view : xs) {
    const Buffer out = ToDevice(*device, data.out);
    const absl::Status status =
        linear->Forward(*device, view, true, View(out.data<float>(), {50, 96}));
    ASSERT_TRUE(status.ok()) << status;
    outs.push_back(ToHost(*device, out, data.out.size()));
  }
  EXPECT_EQ(outs[0], outs[1]);
  // A few rows are computed from float32.
  const Buffer out = ToDevice(*device, data.out);
  EXPECT_TRUE(absl::IsInvalidArgument(
      linear->Forward(*device, xs[1].Rows(0, 1), true, View(out.data<float>(), {1, 96}))));
}

}  // namespace
}  // namespace fovea::compute
