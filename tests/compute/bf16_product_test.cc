#include "compute/cpu/bf16_product.h"

#include <cstring>
#include <vector>

#include "base/float16.h"
#include "compute/cpu/aligned_array.h"
#include "compute/cpu/amx.h"
#include "tests/compute/op_test.h"

namespace fovea::compute::cpu {
namespace {

constexpr int64_t kPad = 16;  // floats behind each row of c, which stay as they are

struct Shape {
  int64_t n_rows, n_pairs, n_columns;
  bool a_is_transposed, add_to_c;
};

uint32_t Pair(float even, float odd) {
  return uint32_t{BFloat16(odd).bits} << 16 | BFloat16(even).bits;
}

// A problem, and what it comes to in float64.
struct Problem {
  explicit Problem(const Shape& shape) : s(shape) {
    const auto a_values = RandomFloats(static_cast<size_t>(2 * s.n_rows * s.n_pairs), 1);
    const auto b_values = RandomFloats(static_cast<size_t>(2 * s.n_columns * s.n_pairs), 2);
    const auto at = [](int64_t i) { return static_cast<size_t>(i); };
    a.resize(at(s.n_rows * s.n_pairs));
    b_memory = AllocateAligned(static_cast<size_t>(s.n_pairs * s.n_columns) * sizeof(uint32_t));
    auto* const b = reinterpret_cast<uint32_t*>(b_memory.get());
    before = RandomFloats(at(s.n_rows * (s.n_columns + kPad)), 3);
    expected.assign(before.begin(), before.end());
    tolerance.assign(before.size(), 1e-30);
    for (int64_t row = 0; row < s.n_rows; ++row) {
      for (int64_t k = 0; k < s.n_pairs; ++k) {
        const size_t i = at(2 * (row * s.n_pairs + k));
        a[at(s.a_is_transposed ? k * s.n_rows + row : row * s.n_pairs + k)] =
            Pair(a_values[i], a_values[i + 1]);
      }
    }
    for (int64_t k = 0; k < s.n_pairs; ++k) {
      for (int64_t column = 0; column < s.n_columns; ++column) {
        const size_t i = at(2 * (k * s.n_columns + column));
        b[k * s.n_columns + column] = Pair(b_values[i], b_values[i + 1]);
      }
    }
    const auto rounded = [](float x) { return double{static_cast<float>(BFloat16(x))}; };
    for (int64_t row = 0; row < s.n_rows; ++row) {
      for (int64_t column = 0; column < s.n_columns; ++column) {
        const size_t i = at(row * (s.n_columns + kPad) + column);
        double sum = s.add_to_c ? before[i] : 0.0;
        double magnitude = std::abs(sum);
        for (int64_t k = 0; k < s.n_pairs; ++k) {
          for (int64_t half = 0; half < 2; ++half) {
            const double product = rounded(a_values[at(2 * (row * s.n_pairs + k) + half)]) *
                                   rounded(b_values[at(2 * (k * s.n_columns + column) + half)]);
            sum += product;
            magnitude += std::abs(product);
          }
        }
        expected[i] = sum;
        tolerance[i] = kEpsilon * magnitude * static_cast<double>(2 * s.n_pairs + 1);
      }
    }
  }

  // Rows [first, first + n) of the product, in a copy of what was there.
  std::vector<float> Compute(int64_t first, int64_t n) const {
    const int64_t stride = s.n_columns + kPad;
    const size_t bytes = before.size() * sizeof(float);
    const AlignedBytes memory = AllocateAligned(bytes);
    auto* const c = reinterpret_cast<float*>(memory.get());
    std::memcpy(c, before.data(), bytes);
    Bf16Product({.a = a.data() + (s.a_is_transposed ? first : first * s.n_pairs),
                 .a_row_stride = s.a_is_transposed ? 1 : s.n_pairs,
                 .a_k_stride = s.a_is_transposed ? s.n_rows : 1,
                 .b = reinterpret_cast<const uint32_t*>(b_memory.get()),
                 .b_stride = s.n_columns,
                 .n_pairs = s.n_pairs,
                 .add_to_c = s.add_to_c,
                 .c = c + first * stride,
                 .c_stride = stride},
                n, s.n_columns);
    return {c, c + before.size()};
  }

  Shape s;
  std::vector<uint32_t> a;
  AlignedBytes b_memory;
  std::vector<float> before;
  std::vector<double> expected, tolerance;  // of what is not computed: as before
};

class Bf16ProductTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!HasBf16Product()) GTEST_SKIP() << "no AVX-512 BF16";
    if (GetParam() && !HasAmxBf16()) GTEST_SKIP() << "no AMX-BF16";
    DisableAmxForTest(!GetParam());
  }
  void TearDown() override { DisableAmxForTest(false); }
};

TEST_P(Bf16ProductTest, IsThatOfTheRoundedFactors) {
  for (const int64_t n_rows : {1, 5, 16, 17, 48, 61}) {
    for (const int64_t n_pairs : {1, 2, 15, 16, 17, 32, 47}) {
      for (const int64_t n_columns : {16, 64, 112}) {
        for (const int options : {0, 1, 2, 3}) {
          const Problem problem(
              {n_rows, n_pairs, n_columns, (options & 1) != 0, (options & 2) != 0});
          ExpectClose(problem.Compute(0, n_rows), problem.expected, problem.tolerance,
                      StrCat(n_rows, " x ", n_pairs, " x ", n_columns, " options ", options));
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST_P(Bf16ProductTest, ARowDoesNotDependOnThoseBesideIt) {
  for (const bool a_is_transposed : {false, true}) {
    const Problem problem({37, 21, 80, a_is_transposed, true});
    const std::vector<float> together = problem.Compute(0, 37);
    for (int64_t row = 0; row < 37; ++row) {
      const std::vector<float> alone = problem.Compute(row, 1);
      const auto begin = static_cast<ptrdiff_t>(row * (80 + kPad));
      EXPECT_TRUE(
          std::equal(alone.begin() + begin, alone.begin() + begin + 80, together.begin() + begin))
          << row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Amx, Bf16ProductTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "with" : "without"; });

}  // namespace
}  // namespace fovea::compute::cpu
