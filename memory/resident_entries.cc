#include "memory/resident_entries.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace fovea::memory {

ResidentEntries::ResidentEntries(const ResidencyPlan& plan, const Generation& generation,
                                 std::vector<std::shared_ptr<const ResidentSlab>> slabs)
    : uses_codes_(plan.uses_codes),
      has_pinned_keys_(plan.has_pinned_keys),
      values_(plan.values),
      slabs_(std::move(slabs)),
      slab_begin_{0},
      word_begin_{0},
      n_candidates_(static_cast<size_t>(generation.settings->n_mem_layers)) {
  size_t window = 0;
  for (size_t s = 0; s < slabs_.size(); ++s) {
    const SlabShape& shape = plan.slabs[s];
    for (; window < generation.windows.size() &&
           generation.windows[window].slot_begin < shape.slot_end;
         ++window) {
      bit_begin_.push_back(64 * word_begin_.back() +
                           slabs_[s]->BeginOf(generation.windows[window].slot_begin));
    }
    slab_begin_.push_back(slab_begin_.back() + slabs_[s]->n_tokens());
    word_begin_.push_back(word_begin_.back() + (slabs_[s]->n_tokens() + 63) / 64);
    // What a segment's calibration found enough is of its own keys.
    for (size_t l = 0; l < n_candidates_.size(); ++l) {
      if (IndexOf(s, static_cast<int>(l)).index != nullptr) {
        has_indexes_ = true;
        continue;
      }
      n_candidates_[l] =
          std::min(n_candidates_[l] + shape.n_candidates[l], compute::kMaxCandidates);
    }
  }
}

Slot ResidentEntries::SlotAt(int64_t position) const {
  const auto next = std::upper_bound(slab_begin_.begin(), slab_begin_.end(), position);
  const auto slab = static_cast<size_t>(next - slab_begin_.begin()) - 1;
  return slabs_[slab]->SlotAt(position - slab_begin_[slab]);
}

ResidentEntries::Place ResidentEntries::PlaceOfBit(int64_t bit) const {
  const auto after = std::upper_bound(word_begin_.begin(), word_begin_.end(), bit / 64);
  const auto slab = static_cast<size_t>(after - word_begin_.begin()) - 1;
  return {slab, bit - 64 * word_begin_[slab]};
}

absl::StatusOr<std::shared_ptr<const compute::Buffer>> ResidentEntries::AllowedOnDevice(
    compute::Device& device, std::vector<uint64_t> bits) const {
  const std::lock_guard<std::mutex> lock(filters_mutex_);
  std::erase_if(filters_, [](const Filter& filter) { return filter.on_device.expired(); });
  for (const Filter& filter : filters_) {
    if (filter.bits != bits) continue;
    if (auto on_device = filter.on_device.lock()) return on_device;
  }
  ASSIGN_OR_RETURN(compute::Buffer buffer, device.Allocate(bits.size() * sizeof(uint64_t)));
  RETURN_IF_ERROR(
      device.CopyFromHost(bits.data(), bits.size() * sizeof(uint64_t), buffer.data<void>()));
  auto on_device = std::make_shared<const compute::Buffer>(std::move(buffer));
  filters_.push_back({.bits = std::move(bits), .on_device = on_device});
  return on_device;
}

std::vector<int64_t> ResidentEntries::CountAllowed(const std::vector<uint64_t>& bits) const {
  std::vector<int64_t> counts;
  for (size_t s = 0; s < slabs_.size(); ++s) {
    int64_t count = 0;
    for (int64_t w = word_begin_[s]; w < word_begin_[s + 1]; ++w) {
      count += std::popcount(bits[static_cast<size_t>(w)]);
    }
    counts.push_back(count);
  }
  return counts;
}

std::vector<compute::CodedMemoryPart> ResidentEntries::Parts(int memory_layer,
                                                             const uint64_t* allowed) const {
  std::vector<compute::CodedMemoryPart> parts;
  for (size_t s = 0; s < slabs_.size(); ++s) {
    parts.push_back(slabs_[s]->Part(memory_layer));
    if (!uses_codes_) parts.back().codes = {};
    if (allowed != nullptr) parts.back().entries.allowed = allowed + word_begin_[s];
  }
  return parts;
}

void ResidentCache::set_pinned_limit_bytes(std::optional<size_t> limit) {
  const std::lock_guard<std::mutex> lock(mutex_);
  pinned_limit_bytes_ = limit;
}

ResidencyLimits ResidentCache::Limits(const compute::Device& device) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return LimitsLocked(device);
}

ResidencyLimits ResidentCache::LimitsLocked(const compute::Device& device) const {
  HeldBytes held;
  for (const auto& slab : slabs_) {
    if (place_ != device.memory_id()) continue;
    held.on_device += slab->bytes().on_device;
    held.pinned += slab->bytes().pinned;
  }
  ResidencyLimits limits = LimitsOf(device, held);
  if (pinned_limit_bytes_.has_value()) {
    limits.pinned_bytes = std::min(limits.pinned_bytes, *pinned_limit_bytes_);
  }
  return limits;
}

absl::StatusOr<std::shared_ptr<const ResidentEntries>> ResidentCache::Get(
    compute::Device& device, const Generation& generation, bool is_approximate,
    const Progress& progress) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (place_ != device.memory_id()) {
    entries_ = nullptr;
    slabs_.clear();
    place_ = device.memory_id();
  }
  if (entries_ != nullptr && epoch_ == generation.epoch && is_approximate_ == is_approximate) {
    return entries_;
  }
  entries_ = nullptr;
  ASSIGN_OR_RETURN(const ResidencyPlan plan,
                   PlanResidency(generation, is_approximate, LimitsLocked(device)));
  // What is of use stays; the rest goes before anything is loaded, so that old and new need not fit
  // together.
  std::vector<std::shared_ptr<const ResidentSlab>> slabs;
  for (const SlabShape& shape : plan.slabs) {
    const auto found = std::find_if(slabs_.begin(), slabs_.end(), [&](const auto& slab) {
      return slab->Serves(generation, shape, plan);
    });
    slabs.push_back(found != slabs_.end() ? *found : nullptr);
  }
  slabs_.clear();
  for (size_t s = 0; s < slabs.size(); ++s) {
    if (slabs[s] == nullptr) {
      ASSIGN_OR_RETURN(slabs[s],
                       ResidentSlab::Load(device, generation, plan.slabs[s], plan, progress));
    }
  }
  slabs_ = slabs;
  entries_ = std::make_shared<ResidentEntries>(plan, generation, std::move(slabs));
  epoch_ = generation.epoch;
  is_approximate_ = is_approximate;
  return entries_;
}

}  // namespace fovea::memory
