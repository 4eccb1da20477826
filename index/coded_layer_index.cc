// Scans of all keys by their codes (compute/code_scan.h). A head's bytes in the file: 56 zeros,
// which put the codes at a multiple of 64 bytes, the codes, the factors, zeros up to a multiple of
// 64 bytes. The file is mapped, so that processes share it; one that goes on searching copies the
// codes into huge pages, which are read faster.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <utility>

#include "base/huge_pages.h"
#include "compute/code_scan.h"
#include "compute/coded_memory_attention.h"
#include "index/index_file.h"
#include "index/key_ids.h"
#include "index/key_space.h"
#include "index/layer_index_kinds.h"

namespace fovea::index {
namespace {

using compute::CodedKeys;
using compute::kCodeBlockKeys;
using compute::KeyCoder;

// In the place of a library's version: what KeyCoder makes of keys.
constexpr std::string_view kFormat = "fovea codes 1";

constexpr size_t kAlignment = 64;
constexpr size_t kPadding = 56;  // after the 8 bytes that a file begins with

// Keys that are coded between two reports of progress.
constexpr int64_t kReportBlocks = 8192;

// Searches for single tokens after which the codes are copied: an answer has begun, and each of its
// tokens reads them all. The copy takes as long as a few of those searches.
constexpr int kSearchesBeforeCopy = 4;
// More positions than this are a prompt's.
constexpr int64_t kMaxSteps = 16;
// Larger codes stay in the file, of which the system can drop what it needs the memory for.
constexpr size_t kMaxCopiedBytes = size_t{1} << 30;

// Heads have 64 to 256 dimensions. A rotation has the square of it, which a file must not be able
// to make arbitrarily large.
constexpr int64_t kMaxHeadDim = 1024;

// n_keys up to 2^31 − 1.
size_t BlobSize(int bits, int64_t head_dim, int64_t n_keys) {
  const auto n_blocks = static_cast<size_t>(KeyCoder::NumBlocks(n_keys));
  const auto line_bytes = n_blocks * 64;
  const size_t factor_bytes = n_blocks * kCodeBlockKeys * sizeof(BFloat16);
  return kAlignment + static_cast<size_t>(KeyCoder::NumLines(bits, head_dim)) * line_bytes +
         (factor_bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Codes and factors of a head, either in memory or in a mapped file.
struct HeadCodes {
  std::vector<std::byte> codes;
  std::vector<BFloat16> factors;
};

// Appends bits [from, from + n) of `in` to `out`, which holds `n_out` bits and zeros beyond them.
void AppendBits(const std::vector<uint64_t>& in, int64_t from, int64_t n, int64_t n_out,
                std::vector<uint64_t>* out) {
  for (int64_t done = 0; done < n;) {
    const int64_t at = from + done;
    const int64_t to = n_out + done;
    const int64_t taken = std::min({n - done, 64 - at % 64, 64 - to % 64});
    uint64_t bits = in[static_cast<size_t>(at / 64)] >> (at % 64);
    if (taken < 64) bits &= (uint64_t{1} << taken) - 1;
    (*out)[static_cast<size_t>(to / 64)] |= bits << (to % 64);
    done += taken;
  }
}

class CodedLayerIndex final : public LayerIndex {
 public:
  CodedLayerIndex(std::string spec, std::unique_ptr<const KeyCoder> coder, KeyIds ids,
                  std::vector<IndexFileHead> statistics, std::vector<HeadCodes> owned,
                  std::unique_ptr<MappedFile> file, std::vector<CodedKeys> heads)
      : spec_(std::move(spec)),
        coder_(std::move(coder)),
        ids_(std::move(ids)),
        statistics_(std::move(statistics)),
        owned_(std::move(owned)),
        file_(std::move(file)),
        heads_(std::move(heads)) {}

  absl::Status Save(const std::filesystem::path& path) const override;
  absl::Status Search(compute::Device& device, const LayerSearchArgs& args,
                      std::vector<int64_t>* candidates) const override;
  bool is_same_in_batches() const override { return true; }
  const std::string& spec() const override { return spec_; }
  int64_t n_kv_heads() const override { return static_cast<int64_t>(heads_.size()); }
  int64_t n_keys() const override { return ids_.size(); }
  std::pair<int, int> ProbeRange() const override { return {0, 0}; }

 private:
  // Ids 0, 1, 2, …: what a filter says of ids, it says of positions.
  bool IdsArePositions() const {
    return ids_.runs().empty() || (ids_.runs().size() == 1 && ids_.runs()[0].first_id == 0);
  }

  // heads_, or their copy in huge pages.
  const std::vector<CodedKeys>& HeadsToScan(compute::Device& device, int64_t n_queries) const;

  const std::string spec_;
  const std::unique_ptr<const KeyCoder> coder_;
  const KeyIds ids_;
  const std::vector<IndexFileHead> statistics_;
  const std::vector<HeadCodes> owned_;      // empty when they are in the file
  const std::unique_ptr<MappedFile> file_;  // null when they are owned
  const std::vector<CodedKeys> heads_;
  mutable std::atomic<int> n_steps_{0};  // searches for single tokens of answers
  mutable std::mutex copy_mutex_;
  mutable HugePages copy_{kMaxCopiedBytes};
  mutable std::vector<CodedKeys> copied_heads_;  // once is_copied_
  mutable std::atomic<bool> is_copied_{false};
};

const std::vector<CodedKeys>& CodedLayerIndex::HeadsToScan(compute::Device& device,
                                                           int64_t n_queries) const {
  if (is_copied_.load(std::memory_order_acquire)) return copied_heads_;
  if (file_ == nullptr || n_queries > kMaxSteps) return heads_;
  if (n_steps_.fetch_add(1, std::memory_order_relaxed) < kSearchesBeforeCopy) return heads_;
  // Others go on with the file meanwhile.
  const std::unique_lock<std::mutex> lock(copy_mutex_, std::try_to_lock);
  if (!lock.owns_lock() || is_copied_.load(std::memory_order_relaxed)) return heads_;
  const auto code_bytes = static_cast<size_t>(coder_->code_bytes(heads_[0].n_keys));
  std::byte* const codes = copy_.Allocate(code_bytes * heads_.size());
  if (codes == nullptr) return heads_;
  copied_heads_ = heads_;
  for (size_t h = 0; h < heads_.size(); ++h) {
    std::byte* const to = codes + h * code_bytes;
    device.threads().ParallelFor(
        static_cast<int64_t>(code_bytes), 256 << 10, [&](int64_t begin, int64_t end, int) {
          std::memcpy(to + begin, heads_[h].codes + begin, static_cast<size_t>(end - begin));
        });
    copied_heads_[h].codes = to;
  }
  is_copied_.store(true, std::memory_order_release);
  return copied_heads_;
}

absl::Status CodedLayerIndex::Search(compute::Device& device, const LayerSearchArgs& args,
                                     std::vector<int64_t>* candidates) const {
  if (args.n_heads < 1 || args.n_candidates < 1 || args.n_queries < 0) {
    return absl::InvalidArgumentError(StrCat("index search: ", args.n_queries, " queries of ",
                                             args.n_heads, " heads, ", args.n_candidates,
                                             " candidates; want at least one candidate"));
  }
  const uint64_t* allowed = nullptr;
  std::vector<uint64_t> positions;
  if (args.filter.bits != nullptr) {
    const std::vector<uint64_t>& bits = *args.filter.bits;
    if (static_cast<int64_t>(bits.size()) < (ids_.end() + 63) / 64) {
      return absl::InvalidArgumentError(StrCat("index search: the filter has ", bits.size(),
                                               " words, want bits up to id ", ids_.end() - 1));
    }
    allowed = bits.data();
    if (!IdsArePositions()) {
      positions.assign(static_cast<size_t>((ids_.size() + 63) / 64), 0);
      int64_t n = 0;
      for (const IdRun& run : ids_.runs()) {
        AppendBits(bits, run.first_id, run.n, n, &positions);
        n += run.n;
      }
      allowed = positions.data();
    }
  }
  candidates->resize(static_cast<size_t>(args.n_queries * args.n_heads * args.n_candidates));
  RETURN_IF_ERROR(compute::CodeScan(
      device,
      {.coder = coder_.get(),
       .heads = HeadsToScan(device, args.n_queries),
       .queries = {args.queries, {args.n_queries, args.n_heads, coder_->head_dim()}},
       .n_candidates = args.n_candidates,
       .allowed = allowed},
      candidates->data()));
  if (!IdsArePositions()) {
    for (int64_t& candidate : *candidates) {
      if (candidate >= 0) candidate = ids_.At(candidate);
    }
  }
  return absl::OkStatus();
}

absl::Status CodedLayerIndex::Save(const std::filesystem::path& path) const {
  IndexFileTrailer trailer;
  trailer.spec = spec_;
  trailer.library = std::string(kFormat);
  trailer.head_dim = coder_->head_dim();
  trailer.index_dim = coder_->padded_dim();
  trailer.n_probe = effort().n_probe;
  trailer.n_candidates = effort().n_candidates;
  trailer.runs = ids_.runs();
  trailer.heads = statistics_;
  return WriteIndexFile(path, std::move(trailer), [&](size_t head, BlobSink sink) -> absl::Status {
    const std::string zeros(kAlignment, '\0');
    const CodedKeys& keys = heads_[head];
    const auto code_bytes = static_cast<size_t>(coder_->code_bytes(keys.n_keys));
    const size_t factor_bytes =
        static_cast<size_t>(coder_->n_factors(keys.n_keys)) * sizeof(BFloat16);
    RETURN_IF_ERROR(sink(std::string_view(zeros).substr(0, kPadding)));
    RETURN_IF_ERROR(sink({reinterpret_cast<const char*>(keys.codes), code_bytes}));
    RETURN_IF_ERROR(sink({reinterpret_cast<const char*>(keys.factors), factor_bytes}));
    const size_t rest = BlobSize(coder_->bits(), coder_->head_dim(), keys.n_keys) - kPadding -
                        code_bytes - factor_bytes;
    return sink(std::string_view(zeros).substr(0, rest));
  });
}

}  // namespace

int CodeBits(const std::string& spec) {
  if (spec == "Scan2") return 2;
  if (spec == "Scan4") return 4;
  if (spec == "Scan8") return 8;
  return 0;
}

absl::Status ValidateCodedSpec(const std::string& spec, int64_t head_dim) {
  if (head_dim <= kMaxHeadDim) return absl::OkStatus();
  return absl::InvalidArgumentError(StrCat("index specification \"", spec, "\": heads of ",
                                           head_dim, " dimensions, want at most ", kMaxHeadDim));
}

namespace {

// Codes of every head's keys and what they were made with.
struct CodedHeads {
  std::vector<HeadCodes> codes;
  std::vector<IndexFileHead> statistics;
};

absl::StatusOr<CodedHeads> EncodeOnHost(compute::Device& host, const KeyCoder& coder,
                                        const std::vector<HeadKeys>& keys, int64_t n_keys,
                                        const Progress& progress) {
  const int64_t head_dim = coder.head_dim();
  const int64_t n_blocks = KeyCoder::NumBlocks(n_keys);
  const int64_t n_all = n_keys * static_cast<int64_t>(keys.size());
  const int64_t block_bytes = coder.n_lines() * 64;
  CodedHeads heads;
  heads.codes.resize(keys.size());
  std::vector<absl::StatusOr<KeyStatistics>> analyses(keys.size());
  host.threads().ParallelFor(
      static_cast<int64_t>(keys.size()), 1, [&](int64_t begin, int64_t end, int /*thread*/) {
        for (auto h = static_cast<size_t>(begin); h < static_cast<size_t>(end); ++h) {
          analyses[h] = Analyse(keys[h], head_dim);
        }
      });
  for (size_t h = 0; h < keys.size(); ++h) {
    RETURN_IF_ERROR(analyses[h].status());
    const std::vector<float>& mean = analyses[h]->mean;
    HeadCodes& head = heads.codes[h];
    head.codes.resize(static_cast<size_t>(coder.code_bytes(n_keys)));
    head.factors.resize(static_cast<size_t>(coder.n_factors(n_keys)));
    for (int64_t first = 0; first < n_blocks; first += kReportBlocks) {
      RETURN_IF_ERROR(progress.Report(
          {"index", static_cast<int64_t>(h) * n_keys + first * kCodeBlockKeys, n_all, "keys"}));
      const int64_t n = std::min(kReportBlocks, n_blocks - first);
      host.threads().ParallelFor(n, 256, [&](int64_t begin, int64_t end, int /*thread*/) {
        KeyCursor cursor(keys[h], head_dim);
        std::vector<float> centred(static_cast<size_t>(kCodeBlockKeys * head_dim));
        for (int64_t block = first + begin; block < first + end; ++block) {
          const int64_t n_block = std::min(kCodeBlockKeys, n_keys - block * kCodeBlockKeys);
          for (int64_t k = 0; k < n_block; ++k) {
            float* key = centred.data() + k * head_dim;
            EntriesToFloat(cursor.At(block * kCodeBlockKeys + k), key,
                           static_cast<size_t>(head_dim));
            for (int64_t d = 0; d < head_dim; ++d) key[d] -= mean[static_cast<size_t>(d)];
          }
          coder.EncodeBlock(centred.data(), n_block, head.codes.data() + block * block_bytes,
                            head.factors.data() + block * kCodeBlockKeys);
        }
      });
    }
    heads.statistics.push_back({.mean = mean, .radius = analyses[h]->radius});
  }
  return heads;
}

// What the device could not code has a factor of 0: a key that is the mean, or one with numbers
// that are not finite, which the host refuses.
absl::Status CheckUncoded(const std::vector<BFloat16>& factors, const HeadKeys& keys,
                          int64_t head_dim, int64_t n_keys) {
  std::vector<float> key(static_cast<size_t>(head_dim));
  KeyCursor cursor(keys, head_dim);
  for (int64_t i = 0; i < n_keys; ++i) {
    if (static_cast<float>(factors[static_cast<size_t>(i)]) != 0.0f) continue;
    EntriesToFloat(cursor.At(i), key.data(), key.size());
    for (size_t d = 0; d < key.size(); ++d) {
      if (std::isfinite(key[d])) continue;
      return absl::InvalidArgumentError(
          StrCat("dimension ", d, " of a key holds NaN or infinity, want finite keys"));
    }
  }
  return absl::OkStatus();
}

// The same by compute::EncodeKeys.
absl::StatusOr<CodedHeads> EncodeOnDevice(compute::Device& device, const KeyCoder& coder,
                                          const std::vector<HeadKeys>& keys,
                                          const DeviceKeys& copied, int64_t n_keys,
                                          const Progress& progress) {
  RETURN_IF_ERROR(
      progress.Report({"index", 0, n_keys * static_cast<int64_t>(keys.size()), "keys"}));
  using compute::Buffer;
  const auto head_dim = static_cast<size_t>(coder.head_dim());
  const auto code_bytes = static_cast<size_t>(coder.code_bytes(n_keys));
  const auto n_factors = static_cast<size_t>(coder.n_factors(n_keys));
  ASSIGN_OR_RETURN(const Buffer codes, device.Allocate(keys.size() * code_bytes));
  ASSIGN_OR_RETURN(const Buffer factors,
                   device.Allocate(keys.size() * n_factors * sizeof(BFloat16)));
  ASSIGN_OR_RETURN(const Buffer means, device.Allocate(keys.size() * head_dim * sizeof(float)));
  ASSIGN_OR_RETURN(
      const Buffer rotation,
      device.UploadConstant(coder.rotation().data(), coder.rotation().size() * sizeof(float)));
  RETURN_IF_ERROR(compute::EncodeKeys(device, {.coder = &coder,
                                               .rotation = rotation.data<float>(),
                                               .keys = copied.view(),
                                               .codes = codes.data<std::byte>(),
                                               .factors = factors.data<BFloat16>(),
                                               .mean = means.data<float>()}));
  CodedHeads heads;
  heads.codes.resize(keys.size());
  for (size_t h = 0; h < keys.size(); ++h) {
    HeadCodes& head = heads.codes[h];
    head.codes.resize(code_bytes);
    head.factors.resize(n_factors);
    std::vector<float> mean(head_dim);
    RETURN_IF_ERROR(
        device.CopyToHost(codes.data<std::byte>() + h * code_bytes, code_bytes, head.codes.data()));
    RETURN_IF_ERROR(device.CopyToHost(factors.data<BFloat16>() + h * n_factors,
                                      n_factors * sizeof(BFloat16), head.factors.data()));
    RETURN_IF_ERROR(device.CopyToHost(means.data<float>() + h * head_dim, head_dim * sizeof(float),
                                      mean.data()));
    // Codes need no radius.
    heads.statistics.push_back({.mean = std::move(mean), .radius = 0.0f});
    RETURN_IF_ERROR(CheckUncoded(head.factors, keys[h], coder.head_dim(), n_keys));
  }
  return heads;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LayerIndex>> BuildCodedIndex(
    compute::Device& device, const std::string& spec, const std::vector<HeadKeys>& keys,
    const DeviceKeys* copied, int64_t head_dim, const Progress& progress) {
  ASSIGN_OR_RETURN(KeyIds ids, SharedIds(keys));
  RETURN_IF_ERROR(ValidateCodedSpec(spec, head_dim));
  auto coder = std::make_unique<const KeyCoder>(CodeBits(spec), head_dim);
  const int64_t n_keys = ids.size();
  const auto encode_on_host = [&] {
    return EncodeOnHost(device.host(), *coder, keys, n_keys, progress);
  };
  absl::StatusOr<CodedHeads> coded =
      copied != nullptr ? EncodeOnDevice(device, *coder, keys, *copied, n_keys, progress)
                        : encode_on_host();
  // Where the device has no room for the codes, or no kernel for the dimensions.
  if (absl::IsUnimplemented(coded.status()) || absl::IsResourceExhausted(coded.status())) {
    coded = encode_on_host();
  }
  if (absl::IsInvalidArgument(coded.status())) {
    return Annotate(coded.status(), StrCat("index \"", spec, "\" over ", n_keys, " keys"));
  }
  RETURN_IF_ERROR(coded.status());
  std::vector<CodedKeys> heads;
  for (const HeadCodes& head : coded->codes) {
    heads.push_back({head.codes.data(), head.factors.data(), n_keys});
  }
  return std::unique_ptr<LayerIndex>(
      new CodedLayerIndex(spec, std::move(coder), std::move(ids), std::move(coded->statistics),
                          std::move(coded->codes), nullptr, std::move(heads)));
}

absl::StatusOr<std::unique_ptr<LayerIndex>> LoadCodedIndex(const std::filesystem::path& path,
                                                           IndexFile file) {
  const IndexFileTrailer& trailer = file.trailer;
  if (trailer.library != kFormat) {
    return absl::DataLossError(StrCat(path, ": codes of format \"", trailer.library, "\", want \"",
                                      kFormat, "\": rebuild the index"));
  }
  // Sizes before anything is allocated by them.
  const int bits = CodeBits(trailer.spec);
  uint64_t n_keys = 0;
  for (const IdRun& run : trailer.runs) n_keys += static_cast<uint64_t>(run.n);
  if (trailer.head_dim > kMaxHeadDim || n_keys > std::numeric_limits<int32_t>::max() ||
      trailer.index_dim != KeyCoder::PaddedDim(bits, trailer.head_dim)) {
    return absl::DataLossError(StrCat(path, ": ", n_keys, " keys of ", trailer.head_dim,
                                      " dimensions, coded as ", trailer.index_dim,
                                      ": rebuild the index"));
  }
  KeyIds ids(trailer.runs);
  const size_t blob_size = BlobSize(bits, trailer.head_dim, ids.size());
  auto coder = std::make_unique<const KeyCoder>(bits, trailer.head_dim);
  std::vector<CodedKeys> heads;
  for (size_t h = 0; h < file.blobs.size(); ++h) {
    if (file.blobs[h].size() != blob_size) {
      return absl::DataLossError(StrCat(path, ": head ", h, " has ", file.blobs[h].size(),
                                        " bytes of codes, want ", blob_size, " for ", ids.size(),
                                        " keys: rebuild the index"));
    }
    const char* codes = file.blobs[h].data() + kPadding;
    const char* factors = codes + coder->code_bytes(ids.size());
    heads.push_back({reinterpret_cast<const std::byte*>(codes),
                     reinterpret_cast<const BFloat16*>(factors), ids.size()});
  }
  return std::unique_ptr<LayerIndex>(new CodedLayerIndex(
      trailer.spec, std::move(coder), std::move(ids), std::move(file.trailer.heads), {},
      std::move(file.file), std::move(heads)));
}

}  // namespace fovea::index
