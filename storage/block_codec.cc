// The records of numbers: halves of blocks, whose bytes are stored as they lie in memory, and
// samples of queries.
#include <cstring>
#include <limits>
#include <vector>

#include "storage/byte_io.h"
#include "storage/record_codec.h"

namespace fovea::storage {
namespace {

constexpr size_t kBlockHeaderBytes = 3 * sizeof(uint32_t);

// n_tokens · n_kv_heads · head_dim numbers in 64 bits, or nothing. Sizes are below 2^32 each.
bool BlockBytes(uint64_t n_tokens, uint64_t n_kv_heads, uint64_t head_dim, EntryType entry_type,
                uint64_t* size_bytes) {
  uint64_t n = 0;
  return !__builtin_mul_overflow(n_tokens, n_kv_heads, &n) &&
         !__builtin_mul_overflow(n, head_dim, &n) &&
         !__builtin_mul_overflow(n, EntryBytes(entry_type), size_bytes);
}

bool FitsU32(int64_t value) { return value >= 0 && value <= std::numeric_limits<uint32_t>::max(); }

RecordType TypeOf(BlockHalf half, EntryType entry_type) {
  if (entry_type == EntryType::kFloat32) {
    return half == BlockHalf::kKeys ? RecordType::kFloat32BlockKeys
                                    : RecordType::kFloat32BlockValues;
  }
  return half == BlockHalf::kKeys ? RecordType::kBlockKeys : RecordType::kBlockValues;
}

}  // namespace

absl::StatusOr<std::string> EncodeBlockHalf(Slot slot_begin, int memory_layer, const Block& block,
                                            BlockHalf half) {
  const EntryVector& numbers = half == BlockHalf::kKeys ? block.keys : block.values;
  const RecordType type = TypeOf(half, numbers.type());
  if (memory_layer < 0 || memory_layer >= kMaxMemoryLayers) {
    return absl::InvalidArgumentError(
        ToAbsl(StrCat("block of the window at slot ", slot_begin, ": memory layer ", memory_layer,
                      ", want 0 to ", kMaxMemoryLayers - 1)));
  }
  const std::string key = BlockKey(slot_begin, memory_layer, half);
  uint64_t size_bytes = 0;
  if (!FitsU32(block.n_tokens) || !FitsU32(block.n_kv_heads) || !FitsU32(block.head_dim) ||
      !BlockBytes(static_cast<uint64_t>(block.n_tokens), static_cast<uint64_t>(block.n_kv_heads),
                  static_cast<uint64_t>(block.head_dim), numbers.type(), &size_bytes) ||
      size_bytes != numbers.size_bytes()) {
    return Invalid(type, key,
                   StrCat(numbers.size(), " numbers for shape [", block.n_kv_heads, ", ",
                          block.n_tokens, ", ", block.head_dim, "]"));
  }
  std::string value;
  value.reserve(kTypeBytes + kBlockHeaderBytes + size_bytes + kChecksumBytes);
  ByteWriter out(&value);
  out.U8(static_cast<uint8_t>(type));
  out.U32(static_cast<uint32_t>(block.n_tokens));
  out.U32(static_cast<uint32_t>(block.n_kv_heads));
  out.U32(static_cast<uint32_t>(block.head_dim));
  out.Raw(numbers.data().address(), size_bytes);
  out.U64(RecordChecksum(key, value));
  return value;
}

absl::StatusOr<BlockView> ViewBlockHalf(std::string_view key, std::string_view value,
                                        const StoreSettings* settings) {
  const auto parts = ParseBlockKey(key);
  if (!parts) return BadKey(RecordType::kBlockKeys, key);
  BlockView view;
  view.type = settings != nullptr                                           ? settings->entry_type
              : ClaimsToBe(TypeOf(parts->half, EntryType::kFloat32), value) ? EntryType::kFloat32
                                                                            : EntryType::kBFloat16;
  const RecordType type = TypeOf(parts->half, view.type);
  ASSIGN_OR_RETURN(const std::string_view payload, OpenRecord(type, key, value));
  ByteReader in(payload);
  view.n_tokens = in.U32();
  view.n_kv_heads = in.U32();
  view.head_dim = in.U32();
  uint64_t size_bytes = 0;
  if (!in.ok() ||
      !BlockBytes(static_cast<uint64_t>(view.n_tokens), static_cast<uint64_t>(view.n_kv_heads),
                  static_cast<uint64_t>(view.head_dim), view.type, &size_bytes) ||
      size_bytes != in.n_left()) {
    return Damaged(type, key,
                   StrCat(in.n_left(), " bytes of numbers for shape [", view.n_kv_heads, ", ",
                          view.n_tokens, ", ", view.head_dim, "]"));
  }
  if (settings != nullptr &&
      (view.n_kv_heads != settings->n_kv_heads || view.head_dim != settings->head_dim)) {
    return Damaged(
        type, key,
        StrCat("shape [", view.n_kv_heads, ", ", view.n_tokens, ", ", view.head_dim, "], want [",
               settings->n_kv_heads, ", n_tokens, ", settings->head_dim, "] as the settings say"));
  }
  view.bytes = in.Raw(size_bytes);
  return view;
}

absl::Status DecodeBlockHalf(std::string_view key, std::string_view value,
                             const StoreSettings* settings, Block* block) {
  ASSIGN_OR_RETURN(const BlockView view, ViewBlockHalf(key, value, settings));
  block->n_tokens = view.n_tokens;
  block->n_kv_heads = view.n_kv_heads;
  block->head_dim = view.head_dim;
  EntryVector numbers(view.type, view.bytes.size() / EntryBytes(view.type));
  if (!view.bytes.empty()) {
    std::memcpy(numbers.bytes().data(), view.bytes.data(), view.bytes.size());
  }
  const BlockHalf half = ParseBlockKey(key)->half;
  (half == BlockHalf::kKeys ? block->keys : block->values) = std::move(numbers);
  return absl::OkStatus();
}

absl::StatusOr<std::string> EncodeQuerySample(Slot slot_begin, const QuerySample& sample) {
  constexpr RecordType kType = RecordType::kQuerySample;
  const std::string key = NumberKey(slot_begin);
  if (!FitsU32(sample.n_queries)) {
    return Invalid(kType, key, StrCat(sample.n_queries, " queries, want 0 to 2^32 - 1"));
  }
  std::string payload;
  ByteWriter out(&payload);
  out.U32(static_cast<uint32_t>(sample.n_queries));
  out.U32(static_cast<uint32_t>(sample.queries.size()));
  for (const std::vector<BFloat16>& layer : sample.queries) {
    const uint64_t n_queries = static_cast<uint64_t>(sample.n_queries);
    if (n_queries == 0 ? !layer.empty() : layer.size() % n_queries != 0) {
      return Invalid(
          kType, key,
          StrCat(layer.size(), " numbers are not a multiple of ", n_queries, " queries"));
    }
    out.U64(layer.size());
    out.Raw(layer.data(), layer.size() * sizeof(BFloat16));
  }
  return SealRecord(kType, key, payload);
}

absl::StatusOr<QuerySample> DecodeQuerySample(std::string_view key, std::string_view value,
                                              const StoreSettings* settings) {
  constexpr RecordType kType = RecordType::kQuerySample;
  if (!ParseNumberKey(key)) return BadKey(kType, key);
  ASSIGN_OR_RETURN(const std::string_view payload, OpenRecord(kType, key, value));
  ByteReader in(payload);
  QuerySample sample;
  const uint64_t n_queries = in.U32();
  const uint64_t n_layers = in.U32();
  sample.n_queries = static_cast<int64_t>(n_queries);
  if (!in.ok() || n_layers > in.n_left() / sizeof(uint64_t)) return Malformed(kType, key);
  if (settings != nullptr && n_layers != static_cast<uint64_t>(settings->n_mem_layers)) {
    return Damaged(
        kType, key,
        StrCat(n_layers, " memory layers, want ", settings->n_mem_layers, " as the settings say"));
  }
  sample.queries.resize(n_layers);
  for (std::vector<BFloat16>& layer : sample.queries) {
    const uint64_t count = in.U64();
    if (!in.ok() || count > in.n_left() / sizeof(BFloat16)) return Malformed(kType, key);
    const uint64_t query_size = settings != nullptr ? static_cast<uint64_t>(settings->head_dim) : 1;
    // n_heads is the model's: here it only has to be a whole number.
    if (n_queries == 0
            ? count != 0
            : count % n_queries != 0 || (query_size > 0 && count / n_queries % query_size != 0)) {
      return Damaged(kType, key, StrCat(count, " numbers for ", n_queries, " queries"));
    }
    layer.resize(count);
    const std::string_view bytes = in.Raw(count * sizeof(BFloat16));
    if (!bytes.empty()) std::memcpy(layer.data(), bytes.data(), bytes.size());
  }
  if (!in.AtEnd()) return Malformed(kType, key);
  return sample;
}

}  // namespace fovea::storage
