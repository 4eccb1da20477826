#include "model/tokenizer/bpe_merges.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <string>

#include "model/tokenizer/byte_alphabet.h"

namespace fovea::model {
namespace {

constexpr uint32_t kNoRank = std::numeric_limits<uint32_t>::max();
constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
// Up to here a scan over all pairs for each merge is faster than a heap. Both give the same.
constexpr size_t kShortWord = 24;

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

absl::StatusOr<std::unique_ptr<BpeMerges>> BpeMerges::Create(const Vocabulary& vocabulary) {
  std::unique_ptr<BpeMerges> result(new BpeMerges);
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const int32_t id = vocabulary.Find(ToByteAlphabet({&c, 1}));
    result->byte_ids_[byte] = id >= 0 && !vocabulary.IsSpecial(id) ? id : vocabulary.unknown_id();
  }

  const std::vector<std::string>& merges = vocabulary.spec().merges;
  if (merges.size() >= kNoRank) {
    return absl::InvalidArgumentError(
        StrCat("tokenizer: ", merges.size(), " merges, ranks have 32 bits"));
  }
  result->merges_.reserve(merges.size());
  std::string merged;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view merge = merges[rank];
    const size_t space = merge.find(' ');
    if (space == std::string_view::npos || merge.find(' ', space + 1) != std::string_view::npos) {
      return absl::InvalidArgumentError(
          StrCat("tokenizer: merge ", rank, " is \"", merge, "\", want two tokens and one space"));
    }
    const std::string_view left = merge.substr(0, space);
    const std::string_view right = merge.substr(space + 1);
    merged.assign(left).append(right);
    const int32_t left_id = vocabulary.Find(left);
    const int32_t right_id = vocabulary.Find(right);
    const int32_t merged_id = vocabulary.Find(merged);
    if (left_id < 0 || right_id < 0 || merged_id < 0) {
      const std::string_view absent = left_id < 0 ? left : right_id < 0 ? right : merged;
      return absl::InvalidArgumentError(StrCat("tokenizer: merge ", rank, " (\"", merge, "\"): \"",
                                               absent, "\" is not in the vocabulary"));
    }
    if (vocabulary.IsSpecial(merged_id)) continue;
    // A pair that is listed twice has its last rank, as in the Hugging Face tokenizers.
    result->merges_.insert_or_assign(PairKey(left_id, right_id),
                                     Merge{static_cast<uint32_t>(rank), merged_id});
  }
  return result;
}

const BpeMerges::Merge* BpeMerges::Find(int32_t left, int32_t right) const {
  const auto it = merges_.find(PairKey(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void BpeMerges::Apply(std::string_view word, std::vector<Symbol>* symbols) const {
  const size_t first = symbols->size();
  for (size_t i = 0; i < word.size(); ++i) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(word[i])];
    if (id >= 0) symbols->push_back({id, static_cast<uint32_t>(i + 1)});
  }
  if (symbols->size() - first <= kShortWord) {
    ApplyShort(symbols, first);
  } else {
    ApplyLong(symbols, first);
  }
}

void BpeMerges::ApplyShort(std::vector<Symbol>* symbols, size_t first) const {
  Symbol* const word = symbols->data() + first;
  size_t size = symbols->size() - first;
  Merge pairs[kShortWord];  // pairs[i]: of symbols i and i + 1
  const auto find = [&](size_t i) {
    const Merge* merge = Find(word[i].id, word[i + 1].id);
    pairs[i] = merge != nullptr ? *merge : Merge{kNoRank, 0};
  };
  for (size_t i = 0; i + 1 < size; ++i) find(i);
  while (size > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < size; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == kNoRank) break;
    word[best] = {pairs[best].id, word[best + 1].end};
    std::copy(word + best + 2, word + size, word + best + 1);
    std::copy(pairs + best + 1, pairs + size - 1, pairs + best);
    --size;
    if (best + 1 < size) find(best);
    if (best > 0) find(best - 1);
  }
  symbols->resize(first + size);
}

void BpeMerges::ApplyLong(std::vector<Symbol>* symbols, size_t first) const {
  // A doubly linked list of symbols, and a heap of pairs by (rank, position). A pair that changed
  // stays in the heap; it is passed over when its rank is no longer the one of its position.
  struct Node {
    uint32_t previous;
    uint32_t next;
    Merge pair;  // with the next symbol
  };
  Symbol* const word = symbols->data() + first;
  const uint32_t size = static_cast<uint32_t>(symbols->size() - first);
  std::vector<Node> nodes(size);
  std::vector<uint64_t> heap;
  heap.reserve(size);
  const auto find = [&](uint32_t i) {
    Node& node = nodes[i];
    const Merge* merge = node.next != kNone ? Find(word[i].id, word[node.next].id) : nullptr;
    node.pair = merge != nullptr ? *merge : Merge{kNoRank, 0};
    if (merge != nullptr) heap.push_back(static_cast<uint64_t>(merge->rank) << 32 | i);
    return merge != nullptr;
  };
  for (uint32_t i = 0; i < size; ++i) {
    nodes[i].previous = i > 0 ? i - 1 : kNone;
    nodes[i].next = i + 1 < size ? i + 1 : kNone;
    find(i);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint32_t rank = static_cast<uint32_t>(heap.back() >> 32);
    const uint32_t i = static_cast<uint32_t>(heap.back());
    heap.pop_back();
    Node& node = nodes[i];
    if (node.pair.rank != rank) continue;
    const uint32_t gone = node.next;
    word[i] = {node.pair.id, word[gone].end};
    nodes[gone].pair.rank = kNoRank;
    node.next = nodes[gone].next;
    if (node.next != kNone) nodes[node.next].previous = i;
    if (find(i)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
    if (node.previous != kNone && find(node.previous)) {
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  }
  size_t kept = 0;
  for (uint32_t i = 0; i != kNone; i = nodes[i].next) word[kept++] = word[i];
  symbols->resize(first + kept);
}

}  // namespace fovea::model
