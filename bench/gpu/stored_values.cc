// One memory layer's exact search and attention on a GPU, by where the values lie: on the GPU, in
// pinned host memory, in the store (memory/residency_plan.h).
//
//   build/cuda-release/bin/gpu_stored_values --memory FOLDER [--tokens 1000000] [--calls 300]
//
// FOLDER is filled with a random memory of three layers, 3 KV heads of 64 dimensions, where there
// is none. A call is a question of 9 query heads with numbers of its own, whose top 16 are attended
// to, from the queries on the GPU to the output there; the host's time, medians of the first and
// the last third of the calls: at first the store's blocks are mapped and checked. Keys that random
// queries find lie in as many windows: text has fewer. The outputs of all places are compared. A
// JSON object goes to stdout, a table to stderr.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "base/hash.h"
#include "memory/memory.h"
#include "memory/resident_entries.h"
#include "memory/search/searcher.h"

namespace fovea::memory {
namespace {

constexpr int kLayers = 3;
constexpr int64_t kHeads = 9;
constexpr int64_t kKvHeads = 3;
constexpr int64_t kHeadDim = 64;
constexpr uint32_t kWindow = 1024;

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}
template <typename T>
T Value(absl::StatusOr<T> result) {
  Check(result.status());
  return *std::move(result);
}

std::vector<float> Normal(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(n);
  for (float& x : numbers) x = normal(random);
  return numbers;
}

// A document of windows of one letter a token.
void AddDocument(storage::DocumentStore& store, int n_windows, const std::vector<float>& pool,
                 std::mt19937* random) {
  const storage::Counters counters = Value(store.ReadCounters());
  storage::DocumentRecord document;
  document.number = counters.next_document;
  document.sources = {{.source = StrCat("random/", document.number, ".txt"),
                       .collection = "default",
                       .title = "random",
                       .replaceable = true}};
  document.complete = true;
  storage::Mutation mutation;
  storage::Slot slot = counters.next_slot;
  std::string all;
  for (int w = 0; w < n_windows; ++w, slot += kWindow) {
    storage::WindowRecord window;
    window.slot_begin = slot;
    for (uint32_t i = 0; i < kWindow; ++i) {
      window.text.push_back(static_cast<char>('a' + (*random)() % 26));
      window.ids.push_back(window.text.back());
      window.ends.push_back(i + 1);
    }
    for (uint32_t begin = 0; begin < kWindow; begin += 256) window.passage_begins.push_back(begin);
    window.content_hash = FastHash128(window.text);
    mutation.PutWindow(window);
    for (int layer = 0; layer < kLayers; ++layer) {
      storage::Block block;
      block.n_tokens = kWindow;
      block.n_kv_heads = kKvHeads;
      block.head_dim = kHeadDim;
      for (EntryVector* const half : {&block.keys, &block.values}) {
        *half = EntryVector(EntryType::kBFloat16, size_t{kWindow} * kKvHeads * kHeadDim);
        half->Set(0, pool.data() + (*random)() % (pool.size() - half->size()), half->size());
      }
      mutation.PutBlock(slot, layer, block);
    }
    storage::WindowLink link;
    link.document = document.number;
    link.ordinal = static_cast<uint64_t>(w);
    link.slot_begin = slot;
    link.n_tokens = kWindow;
    link.byte_begin = all.size();
    link.n_bytes = kWindow;
    mutation.PutLink(link);
    all += window.text;
  }
  document.id = Sha256Hex(all).substr(0, 32);
  document.size_bytes = document.n_tokens = all.size();
  document.n_windows = static_cast<uint64_t>(n_windows);
  mutation.PutDocument(document);
  mutation.PutNextDocumentNumber(document.number + 1);
  mutation.PutNextSlot(slot);
  Check(store.Commit(std::move(mutation)));
}

void Fill(const std::string& folder, int64_t n_tokens) {
  MemoryOptions options;
  options.mode = storage::OpenMode::kCreate;
  const auto memory = Value(Memory::Open(folder, options));
  storage::StoreSettings settings;
  settings.fingerprint = "00112233445566778899aabbccddeeff";
  settings.model = "random";
  settings.window = kWindow;
  settings.overlap = 128;
  settings.index_spec = "exact";
  settings.n_mem_layers = kLayers;
  settings.n_kv_heads = kKvHeads;
  settings.head_dim = kHeadDim;
  Check(memory->InitializeSettings(settings));
  const std::vector<float> pool = Normal(size_t{1} << 22, 1);
  std::mt19937 random(2);
  constexpr int64_t kWindowsAtOnce = 64;
  for (int64_t w = 0; w < n_tokens / kWindow; w += kWindowsAtOnce) {
    AddDocument(memory->store(), static_cast<int>(std::min(kWindowsAtOnce, n_tokens / kWindow - w)),
                pool, &random);
  }
  Check(memory->Publish());
}

double Median(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void Run(const std::string& folder, int64_t n_tokens, int n_calls) {
  if (!Memory::Exists(folder)) Fill(folder, n_tokens);
  const auto device = Value(compute::Device::Create("cuda"));
  const std::vector<float> pool = Normal(size_t{1} << 20, 3);
  const compute::Buffer queries =
      Value(device->UploadConstant(pool.data(), pool.size() * sizeof(float)));
  const compute::Buffer output = Value(device->Allocate(kHeads * kHeadDim * sizeof(float)));
  const compute::Buffer lse = Value(device->Allocate(kHeads * sizeof(float)));
  std::vector<float> first, outputs;
  std::printf("{\"bench\": \"gpu_stored_values\", \"rows\": [");
  for (const auto& [name, place] : {std::pair{"device", ValuePlace::kDevice},
                                    {"pinned", ValuePlace::kPinned},
                                    {"store", ValuePlace::kStore}}) {
    MemoryOptions options;
    if (place == ValuePlace::kStore) options.pinned_bytes = 0;
    const auto memory = Value(Memory::Open(folder, options));
    const auto view = memory->Current();
    const size_t key_bytes = view->n_tokens * kLayers * kKvHeads * kHeadDim * sizeof(BFloat16);
    device->set_entry_limit_bytes(place == ValuePlace::kDevice ? 2 * key_bytes : key_bytes);
    const auto plan = Value(PlanResidency(*view, false, view->source->resident().Limits(*device)));
    FOVEA_CHECK(plan.values == place);
    const auto searcher = Value(
        MemorySearcher::Create(device.get(), view, {.mode = SearchMode::kExact, .top_k = 16}));
    std::vector<double> times;
    outputs.clear();
    for (int call = 0; call < n_calls; ++call) {
      const auto begin = std::chrono::steady_clock::now();
      const model::MemoryQuery query{
          .memory_layer = call % kLayers,
          .queries = queries.data<float>() + static_cast<int64_t>(call) * 384 % (1 << 19),
          .n_queries = 1,
          .n_heads = kHeads,
          .n_kv_heads = kKvHeads,
          .head_dim = kHeadDim,
          .scale = 0.125f};
      Check(searcher->Attend(query, output.data<float>(), lse.data<float>()));
      Check(device->Synchronize());
      const std::chrono::duration<double, std::micro> taken =
          std::chrono::steady_clock::now() - begin;
      times.push_back(taken.count());
      outputs.resize(outputs.size() + kHeads * kHeadDim);
      Check(device->CopyToHost(output.data<void>(), output.size_bytes(),
                               outputs.data() + outputs.size() - kHeads * kHeadDim));
    }
    if (first.empty()) first = outputs;
    const size_t third = times.size() / 3;
    const double at_first = Median({times.begin(), times.begin() + static_cast<ptrdiff_t>(third)});
    const double later = Median({times.end() - static_cast<ptrdiff_t>(third), times.end()});
    std::fprintf(stderr, "%9lld tokens, values: %-7s %9.1f us at first, %9.1f us later, %s\n",
                 static_cast<long long>(view->n_tokens), name, at_first, later,
                 outputs == first ? "the same bits" : "OTHER RESULTS");
    std::printf(
        "%s{\"values\": \"%s\", \"tokens\": %lld, \"first_us\": %.1f, \"later_us\": %.1f, "
        "\"same\": %s}",
        place == ValuePlace::kDevice ? "" : ", ", name, static_cast<long long>(view->n_tokens),
        at_first, later, outputs == first ? "true" : "false");
  }
  std::printf("]}\n");
}

}  // namespace
}  // namespace fovea::memory

int main(int argc, char** argv) {
  std::string folder;
  int64_t n_tokens = 1000000;
  int n_calls = 300;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--memory") folder = argv[i + 1];
    if (name == "--tokens") n_tokens = std::atoll(argv[i + 1]);
    if (name == "--calls") n_calls = std::atoi(argv[i + 1]);
  }
  if (folder.empty() || n_tokens < 1024 || n_calls < 3) {
    std::fprintf(stderr, "want --memory FOLDER, --tokens from 1024 on, --calls from 3 on\n");
    return 1;
  }
  fovea::memory::Run(folder, n_tokens, n_calls);
}
