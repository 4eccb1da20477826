#include "index/faiss_merge.h"

#include <faiss/IndexFlat.h>
#include <faiss/IndexIVF.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexScalarQuantizer.h>
#include <faiss/invlists/InvertedLists.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <typeinfo>

namespace fovea::index {
namespace {

using Quantizer = faiss::ScalarQuantizer;

// What FAISS's loops like dimensions to be a multiple of.
constexpr int64_t kDimUnit = 4;
// In radii. Two keys of a head lie at most two radii apart, and heads 2·√2.
constexpr float kAxis = 2.0f;

const faiss::IndexIVF* AsIvf(const faiss::Index* index) {
  return dynamic_cast<const faiss::IndexIVF*>(index);
}

// Bytes of a dimension of a code; 0: another kind of code.
size_t DimBytes(const faiss::Index* index) {
  if (index == nullptr) return 0;
  if (typeid(*index) == typeid(faiss::IndexIVFFlat)) return sizeof(float);
  if (typeid(*index) != typeid(faiss::IndexIVFScalarQuantizer)) return 0;
  const auto& ivf = static_cast<const faiss::IndexIVFScalarQuantizer&>(*index);
  if (!ivf.by_residual) return 0;
  return ivf.sq.qtype == Quantizer::QT_fp16 ? 2 : ivf.sq.qtype == Quantizer::QT_8bit ? 1 : 0;
}

// The range of each dimension that codes of 8 bits divide: [low | width], as FAISS has it.
const std::vector<float>& RangesOf(const FaissHead& head) {
  return static_cast<const faiss::IndexIVFScalarQuantizer*>(head.index)->sq.trained;
}
std::vector<float> CommonRanges(const std::vector<FaissHead>& heads, size_t dim,
                                size_t merged_dim) {
  std::vector<float> common(2 * merged_dim, 0.0f);
  for (size_t d = 0; d < dim; ++d) {
    float low = RangesOf(heads[0])[d];
    float high = low;
    for (const FaissHead& head : heads) {
      const std::vector<float>& ranges = RangesOf(head);
      low = std::min(low, ranges[d]);
      high = std::max(high, ranges[d] + ranges[dim + d]);
    }
    common[d] = low;
    common[merged_dim + d] = high - low;
  }
  return common;
}

// What a byte of a head's codes is in the common ranges, [dim][256].
std::vector<uint8_t> Translation(const std::vector<float>& ranges, const std::vector<float>& common,
                                 size_t dim, size_t merged_dim) {
  std::vector<uint8_t> to(dim * 256);
  for (size_t d = 0; d < dim; ++d) {
    const float width = common[merged_dim + d];
    for (size_t code = 0; code < 256; ++code) {
      // FAISS's code is the number of the step that a number lies in, and stands for its middle.
      const float number = ranges[d] + ranges[dim + d] * (static_cast<float>(code) + 0.5f) / 255.0f;
      const float step = width > 0.0f ? (number - common[d]) / width * 255.0f : 0.0f;
      to[d * 256 + code] = static_cast<uint8_t>(std::clamp(step, 0.0f, 255.0f));
    }
  }
  return to;
}

}  // namespace

int64_t MergedDim(const faiss::Index* head, int64_t n_heads) {
  if (n_heads < 2 || DimBytes(head) == 0) return 0;
  return (head->d + n_heads + kDimUnit - 1) / kDimUnit * kDimUnit;
}

MergedHeads MergeHeads(const std::vector<FaissHead>& heads) {
  MergedHeads merged;
  const size_t dim_bytes = DimBytes(heads[0].index);
  const auto n_heads = static_cast<int64_t>(heads.size());
  const auto dim = static_cast<size_t>(heads[0].index->d);
  const auto merged_dim = static_cast<size_t>(MergedDim(heads[0].index, n_heads));
  if (merged_dim == 0) return merged;
  float radius = 0.0f;
  for (const FaissHead& head : heads) {
    if (DimBytes(head.index) != dim_bytes || head.radius <= 0.0f) return merged;
    radius = std::max(radius, head.radius);
  }
  merged.first_axis = static_cast<int64_t>(dim);
  merged.axis_value = kAxis * radius;

  size_t n_lists = 0;
  for (const FaissHead& head : heads) n_lists += AsIvf(head.index)->nlist;
  auto centroids = std::make_unique<faiss::IndexFlatL2>(static_cast<int64_t>(merged_dim));
  std::vector<float> centroid(merged_dim);
  std::unique_ptr<faiss::IndexIVF> ivf;
  if (dim_bytes == sizeof(float)) {
    ivf = std::make_unique<faiss::IndexIVFFlat>(centroids.get(), merged_dim, n_lists);
  } else {
    auto quantised = std::make_unique<faiss::IndexIVFScalarQuantizer>(
        centroids.get(), merged_dim, n_lists,
        dim_bytes == 2 ? Quantizer::QT_fp16 : Quantizer::QT_8bit);
    if (dim_bytes == 1) quantised->sq.trained = CommonRanges(heads, dim, merged_dim);
    ivf = std::move(quantised);
  }
  ivf->own_fields = true;
  faiss::IndexFlatL2* const quantizer = centroids.release();
  size_t first_list = 0;
  for (size_t h = 0; h < heads.size(); ++h) {
    const faiss::IndexIVF& head = *AsIvf(heads[h].index);
    std::vector<uint8_t> translation;
    if (dim_bytes == 1) {
      const auto& common = static_cast<const faiss::IndexIVFScalarQuantizer&>(*ivf).sq.trained;
      translation = Translation(RangesOf(heads[h]), common, dim, merged_dim);
    }
    std::vector<uint8_t> codes;
    for (size_t list = 0; list < head.nlist; ++list) {
      std::fill(centroid.begin(), centroid.end(), 0.0f);
      head.quantizer->reconstruct(static_cast<int64_t>(list), centroid.data());
      centroid[dim + h] = merged.axis_value;
      quantizer->add(1, centroid.data());
      const size_t n = head.invlists->list_size(list);
      if (n == 0) continue;
      faiss::InvertedLists::ScopedCodes from(head.invlists, list);
      faiss::InvertedLists::ScopedIds ids(head.invlists, list);
      // A residual has nothing in the new dimensions; a vector has its head's axis.
      codes.assign(n * ivf->code_size, 0);
      for (size_t i = 0; i < n; ++i) {
        const uint8_t* const code = from.get() + i * head.code_size;
        uint8_t* const to = codes.data() + i * ivf->code_size;
        if (dim_bytes == 1) {
          for (size_t d = 0; d < dim; ++d) to[d] = translation[d * 256 + code[d]];
        } else {
          std::memcpy(to, code, head.code_size);
        }
        if (dim_bytes == sizeof(float)) {
          std::memcpy(to + (dim + h) * sizeof(float), &merged.axis_value, sizeof(float));
        }
      }
      ivf->invlists->add_entries(first_list + list, n, ids.get(), codes.data());
    }
    first_list += head.nlist;
    ivf->ntotal += head.ntotal;
  }
  ivf->is_trained = true;
  merged.index = std::move(ivf);
  return merged;
}

}  // namespace fovea::index
