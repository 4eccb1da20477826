// A query's threshold comes from a sample of the blocks, so that few keys pass it; it is the same
// for all threads, and what passes is sorted out at the end.
#include "compute/cpu/code_scan.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "compute/cpu/code_scan_kernel.h"
#include "compute/cpu/key_codes.h"

namespace fovea::compute::cpu {
namespace {

// Rows (query, head) that go through a scan together: what their candidates take stays small.
constexpr int64_t kRowsAtOnce = 256;

// A sample of the blocks: runs of kSampleRun in every kSampleEvery.
constexpr int64_t kSampleRun = 4;
constexpr int64_t kSampleEvery = 64;
// Fewer keys are not worth a sample.
constexpr int64_t kMinSampledKeys = 16'384;

// Codes that a thread keeps in its second-level cache while it puts many rows through them.
constexpr int64_t kChunkBytes = 128 << 10;

// The rank in the sample that n_candidates of all keys hardly ever fall short of; 0: no sample.
int64_t SampleRank(int64_t n_keys, int64_t n_candidates) {
  if (n_keys < kMinSampledKeys) return 0;
  const double expected =
      static_cast<double>(n_candidates) * static_cast<double>(kSampleRun) / kSampleEvery;
  // Four standard deviations of a Poisson variable, and some more since neighbours are alike.
  const auto rank = static_cast<int64_t>(1.25 * expected + 4.0 * std::sqrt(expected) + 8.0);
  return rank * 4 <= n_keys * kSampleRun / kSampleEvery ? rank : 0;
}

// Smaller for better hits (IsBetter), in one number: comparing those is faster. Scores are no NaNs.
uint64_t OrderedKey(const Hit& hit) {
  // + 0: −0 and 0 are equal scores.
  const auto bits = std::bit_cast<uint32_t>(hit.score + 0.0f);
  // Of positive numbers larger bits are larger numbers, of negative ones smaller.
  const uint32_t descending = (bits & 0x80000000) != 0 ? bits : ~(bits | 0x80000000);
  return uint64_t{descending} << 32 | static_cast<uint32_t>(hit.position);
}

// Rows first … first + n of each KV head: row = query · group + head in group.
struct Portion {
  int64_t first;
  int64_t n;
};

class Scanner {
 public:
  Scanner(CpuDevice& device, const CodeScanArgs& args)
      : threads_(device.threads()),
        args_(args),
        scratch_(device.code_scan_scratch()),
        vnni_(HasCodeScanVnni()),
        max_group_(MaxCodeRows()),
        n_kv_heads_(static_cast<int64_t>(args.heads.size())),
        n_heads_(args.queries.dim(1)),
        group_(n_heads_ / n_kv_heads_),
        n_keys_(args.heads[0].n_keys),
        n_blocks_(KeyCoder::NumBlocks(n_keys_)),
        n_words_(args.coder->padded_dim() / 4) {}

  void Run(Portion portion, int64_t* positions) {
    portion_ = portion;
    n_rows_ = n_kv_heads_ * portion.n;
    groups_per_head_ = (portion.n + max_group_ - 1) / max_group_;
    PackQueries();
    FindThresholds();
    Scan();
    const int64_t n_wanted = std::min(args_.n_candidates, n_keys_);
    bool is_short = false;
    Finish(positions, n_wanted, &is_short);
    if (!is_short) return;
    // A sample misjudged what there is, or a filter leaves less than is wanted.
    Scan();
    Finish(positions, n_wanted, &is_short);
  }

 private:
  // Row `row` of the portion, of KV head row / portion.n, among [n_queries, n_heads].
  int64_t Place(int64_t row) const {
    const int64_t in_head = portion_.first + row % portion_.n;
    return in_head / group_ * n_heads_ + row / portion_.n * group_ + in_head % group_;
  }

  // Group g of the portion's rows: rows of one KV head.
  int64_t FirstRow(int64_t g) const {
    return g / groups_per_head_ * portion_.n + g % groups_per_head_ * max_group_;
  }
  RowGroup Group(int64_t g) const {
    const int64_t first = FirstRow(g);
    const int64_t head_end = (g / groups_per_head_ + 1) * portion_.n;
    return {scratch_.words.data() + first * n_words_, scratch_.offsets.data() + first,
            static_cast<int>(std::min(max_group_, head_end - first))};
  }

  void PackQueries() {
    const KeyCoder& coder = *args_.coder;
    const int64_t padded_dim = coder.padded_dim();
    const float middle = static_cast<float>((1 << coder.bits()) - 1) / 2.0f;
    const float largest_digit = coder.bits() == 8 ? 63.0f : 127.0f;
    scratch_.words.resize(static_cast<size_t>(n_rows_ * n_words_));
    scratch_.offsets.resize(static_cast<size_t>(n_rows_));
    scratch_.rotated.resize(static_cast<size_t>(padded_dim));
    float* rotated = scratch_.rotated.data();
    for (int64_t g = 0; g < n_kv_heads_ * groups_per_head_; ++g) {
      const RowGroup group = Group(g);
      const int64_t first = FirstRow(g);
      uint32_t* words = scratch_.words.data() + first * n_words_;
      for (int64_t r = 0; r < group.n_rows; ++r) {
        const float* query = args_.queries.As<float>() + Place(first + r) * coder.head_dim();
        RotateForCodes(coder, query, rotated);
        float largest = 0.0f;
        for (int64_t d = 0; d < padded_dim; ++d) largest = std::max(largest, std::abs(rotated[d]));
        // A query of zeros ranks nothing, nor does one that overflows.
        const float inverse =
            largest > 0.0f && std::isfinite(largest) ? largest_digit / largest : 0.0f;
        int32_t sum = 0;
        for (int64_t w = 0; w < n_words_; ++w) {
          uint32_t word = 0;
          for (int64_t b = 0; b < 4; ++b) {
            const float scaled = rotated[4 * w + b] * inverse;
            const auto digit =
                std::isfinite(scaled) ? static_cast<int32_t>(std::nearbyint(scaled)) : 0;
            sum += digit;
            word |= static_cast<uint32_t>(digit & 0xff) << (8 * b);
          }
          words[w * group.n_rows + r] = word;
        }
        scratch_.offsets[static_cast<size_t>(first + r)] = middle * static_cast<float>(sum);
      }
    }
  }

  BlockRange Range(int64_t kv_head, int64_t begin, int64_t end) const {
    return {&args_.heads[static_cast<size_t>(kv_head)],
            args_.coder->n_lines(),
            begin,
            end,
            -1,
            args_.allowed};
  }

  void FindThresholds() {
    scratch_.thresholds.assign(static_cast<size_t>(n_rows_),
                               -std::numeric_limits<float>::infinity());
    const int64_t rank = SampleRank(n_keys_, args_.n_candidates);
    if (rank == 0) return;
    // A head's sample is cut into parts where there are fewer groups than keep all threads busy.
    const int64_t n_groups = n_kv_heads_ * groups_per_head_;
    const int64_t n_runs = (n_blocks_ - kSampleRun) / kSampleEvery + 1;
    const int64_t n_parts =
        threads_.n_threads() == 1
            ? 1
            : std::clamp<int64_t>(4 * threads_.n_threads() / n_groups, 1, n_runs);
    const int64_t runs_per_part = (n_runs + n_parts - 1) / n_parts;
    if (static_cast<int64_t>(scratch_.samples.size()) < n_rows_ * n_parts) {
      scratch_.samples.resize(static_cast<size_t>(n_rows_ * n_parts));
    }
    threads_.ParallelFor(n_groups * n_parts, 1, [&](int64_t begin, int64_t end, int /*thread*/) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t g = item / n_parts;
        const int64_t part = item % n_parts;
        const RowGroup group = Group(g);
        Collector* samples = scratch_.samples.data() + part * n_rows_ + FirstRow(g);
        for (int r = 0; r < group.n_rows; ++r) {
          samples[r].Start(rank, -std::numeric_limits<float>::infinity());
        }
        BlockRange range = Range(g / groups_per_head_, 0, 0);
        const int64_t last_run = std::min((part + 1) * runs_per_part, n_runs);
        for (int64_t run = part * runs_per_part; run < last_run; ++run) {
          range.begin = run * kSampleEvery;
          range.end = range.begin + kSampleRun;
          range.next = std::min(range.begin + kSampleEvery, n_blocks_ - kSampleRun);
          ScanCodeBlocks(args_.coder->bits(), vnni_, range, group, samples);
        }
      }
    });
    for (int64_t row = 0; row < n_rows_; ++row) {
      Collector& all = scratch_.samples[static_cast<size_t>(row)];
      for (int64_t part = 1; part < n_parts; ++part) {
        for (const Hit& hit : scratch_.samples[static_cast<size_t>(part * n_rows_ + row)].hits()) {
          all.Add(hit);
        }
      }
      all.Shrink();
      if (static_cast<int64_t>(all.hits().size()) == rank) {
        scratch_.thresholds[static_cast<size_t>(row)] = all.threshold();
      }
    }
  }

  void Scan() {
    const auto n_threads = static_cast<size_t>(threads_.n_threads());
    if (scratch_.collectors.size() < n_threads) scratch_.collectors.resize(n_threads);
    scratch_.started.resize(n_threads);
    for (auto& started : scratch_.started) started.assign(static_cast<size_t>(n_rows_), 0);
    const int64_t block_bytes = args_.coder->n_lines() * kCodeLineBytes;
    const int64_t chunk = std::clamp<int64_t>(n_blocks_ / (threads_.n_threads() * 8), 16,
                                              std::max<int64_t>(16, kChunkBytes / block_bytes));
    const int64_t chunks_per_head = (n_blocks_ + chunk - 1) / chunk;
    threads_.ParallelFor(
        n_kv_heads_ * chunks_per_head, 1, [&](int64_t begin, int64_t end, int thread) {
          std::vector<Collector>& collectors = scratch_.collectors[static_cast<size_t>(thread)];
          std::vector<uint8_t>& started = scratch_.started[static_cast<size_t>(thread)];
          if (static_cast<int64_t>(collectors.size()) < n_rows_) {
            collectors.resize(static_cast<size_t>(n_rows_));
          }
          for (int64_t item = begin; item < end; ++item) {
            const int64_t kv_head = item / chunks_per_head;
            const int64_t first_block = item % chunks_per_head * chunk;
            const BlockRange range =
                Range(kv_head, first_block, std::min(first_block + chunk, n_blocks_));
            for (int64_t g = kv_head * groups_per_head_; g < (kv_head + 1) * groups_per_head_;
                 ++g) {
              const RowGroup group = Group(g);
              const int64_t first = FirstRow(g);
              for (int64_t row = first; row < first + group.n_rows; ++row) {
                if (started[static_cast<size_t>(row)] != 0) continue;
                started[static_cast<size_t>(row)] = 1;
                collectors[static_cast<size_t>(row)].Start(
                    args_.n_candidates, scratch_.thresholds[static_cast<size_t>(row)]);
              }
              ScanCodeBlocks(args_.coder->bits(), vnni_, range, group, collectors.data() + first);
            }
          }
        });
  }

  // Sorts out what the threads found. Rows with less than is wanted that had a threshold lose it,
  // the others get one that nothing reaches, for another scan.
  void Finish(int64_t* positions, int64_t n_wanted, bool* is_short) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    std::atomic<bool> any_short{false};
    // A row takes some microseconds; those of a single token suffice for a few threads.
    const int64_t grain = n_rows_ < 64 ? 2 : 32;
    threads_.ParallelFor(n_rows_, grain, [&](int64_t begin, int64_t end, int /*thread*/) {
      std::vector<uint64_t> all;
      std::vector<int32_t> sorted;
      for (int64_t row = begin; row < end; ++row) {
        float& threshold = scratch_.thresholds[static_cast<size_t>(row)];
        if (threshold == kInfinity) continue;
        all.clear();
        for (size_t thread = 0; thread < scratch_.started.size(); ++thread) {
          if (scratch_.started[thread][static_cast<size_t>(row)] == 0) continue;
          const auto& hits = scratch_.collectors[thread][static_cast<size_t>(row)].hits();
          for (const Hit& hit : hits) all.push_back(OrderedKey(hit));
        }
        const auto n_found = static_cast<int64_t>(all.size());
        if (n_found < n_wanted && threshold != -kInfinity) {
          threshold = -kInfinity;
          any_short.store(true, std::memory_order_relaxed);
          continue;
        }
        threshold = kInfinity;
        int64_t* out = positions + Place(row) * args_.n_candidates;
        const int64_t n_kept = std::min(args_.n_candidates, n_found);
        if (n_kept < n_found) {
          std::nth_element(all.begin(), all.begin() + n_kept - 1, all.end());
        }
        // Which threads found them must not show in the order.
        SortPositions({all.data(), static_cast<size_t>(n_kept)}, &sorted, out);
        std::fill(out + n_kept, out + args_.n_candidates, int64_t{-1});
      }
    });
    *is_short = any_short.load();
  }

  // The positions of `hits` (in their lower halves), ascending, by their digits.
  void SortPositions(std::span<const uint64_t> hits, std::vector<int32_t>* scratch,
                     int64_t* out) const {
    constexpr int kDigitBits = 11;
    constexpr uint32_t kDigits = 1u << kDigitBits;
    const size_t n = hits.size();
    scratch->resize(2 * n);
    int32_t* from = scratch->data();
    int32_t* to = from + n;
    for (size_t i = 0; i < n; ++i) from[i] = static_cast<int32_t>(hits[i] & 0xffffffff);
    if (n < 64) {
      std::sort(from, from + n);
      std::copy_n(from, n, out);
      return;
    }
    for (int shift = 0; (n_keys_ - 1) >> shift != 0; shift += kDigitBits) {
      std::array<uint32_t, kDigits> begins{};
      const auto digit = [shift](int32_t position) {
        return (static_cast<uint32_t>(position) >> shift) & (kDigits - 1);
      };
      for (size_t i = 0; i < n; ++i) ++begins[digit(from[i])];
      uint32_t begin = 0;
      for (uint32_t& count : begins) begin += std::exchange(count, begin);
      for (size_t i = 0; i < n; ++i) to[begins[digit(from[i])]++] = from[i];
      std::swap(from, to);
    }
    std::copy_n(from, n, out);
  }

  ThreadPool& threads_;
  const CodeScanArgs& args_;
  CodeScanScratch& scratch_;
  const bool vnni_;
  const int64_t max_group_;  // rows
  const int64_t n_kv_heads_;
  const int64_t n_heads_;
  const int64_t group_;
  const int64_t n_keys_;
  const int64_t n_blocks_;
  const int64_t n_words_;
  Portion portion_{};
  int64_t n_rows_ = 0;
  int64_t groups_per_head_ = 0;
};

}  // namespace

void CodeScan(CpuDevice& device, const CodeScanArgs& args, int64_t* positions) {
  const auto n_kv_heads = static_cast<int64_t>(args.heads.size());
  const int64_t n_queries = args.queries.dim(0);
  const int64_t n_heads = args.queries.dim(1);
  if (args.heads[0].n_keys == 0) {
    std::fill_n(positions, n_queries * n_heads * args.n_candidates, int64_t{-1});
    return;
  }
  Scanner scanner(device, args);
  const int64_t rows_per_head = n_queries * (n_heads / n_kv_heads);
  const int64_t step = std::max<int64_t>(MaxCodeRows(), kRowsAtOnce / n_kv_heads);
  for (int64_t first = 0; first < rows_per_head; first += step) {
    scanner.Run({first, std::min(step, rows_per_head - first)}, positions);
  }
}

}  // namespace fovea::compute::cpu
