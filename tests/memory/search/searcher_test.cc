#include "memory/search/searcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <random>
#include <set>

#include "memory/block_layout.h"
#include "memory/ingest/ingester.h"
#include "memory/search/attribution.h"
#include "memory/upkeep/rebuild.h"
#include "tests/compute/guarded_device.h"
#include "tests/memory/search/same_mass.h"
#include "tests/memory/tiny_model.h"

namespace fovea::memory {
namespace {

namespace fs = std::filesystem;

// An index that counts the searches that are put to it, and refuses those of several positions
// where it is told to.
class WatchedIndex final : public index::LayerIndex {
 public:
  struct Watch {
    int n_searches = 0;
    bool refuses_several = false;
  };
  WatchedIndex(const LayerIndex* watched, Watch* watch) : watched_(watched), watch_(watch) {
    set_effort(watched->effort());
  }
  absl::Status Save(const fs::path& path) const override { return watched_->Save(path); }
  absl::Status Search(compute::Device& device, const index::LayerSearchArgs& args,
                      std::vector<int64_t>* candidates) const override {
    ++watch_->n_searches;
    if (watch_->refuses_several && args.n_queries > 1) return absl::DataLossError("watched");
    return watched_->Search(device, args, candidates);
  }
  bool is_same_in_batches() const override { return watched_->is_same_in_batches(); }
  const std::string& spec() const override { return watched_->spec(); }
  int64_t n_kv_heads() const override { return watched_->n_kv_heads(); }
  int64_t n_keys() const override { return watched_->n_keys(); }
  std::pair<int, int> ProbeRange() const override { return watched_->ProbeRange(); }

 private:
  const LayerIndex* const watched_;
  Watch* const watch_;
};

// What `of` shows, its indexes watched. `of` outlives it.
std::shared_ptr<const Generation> Watched(const Generation& of, WatchedIndex::Watch* watch) {
  auto generation = std::make_shared<Generation>(of);
  for (std::shared_ptr<const Segment>& segment : generation->segments) {
    auto watched = std::make_shared<Segment>();
    watched->record = segment->record;
    for (const auto& layer : segment->layers) {
      watched->layers.push_back(std::make_unique<WatchedIndex>(layer.get(), watch));
    }
    segment = std::move(watched);
  }
  return generation;
}

constexpr int64_t kGroup = kTinyHeads / kTinyKvHeads;
constexpr int64_t kPositions = 5;
constexpr size_t kRepeats = 150;  // of one character, which no query selects

// A memory of three documents in two collections, encoded by a tiny model, and every stored key and
// value in plain arrays beside it: what searches are checked against, in double precision. With
// entries of either type: float32 ones that were rounded anywhere on the way would show.
class SearcherTest : public testing::TestWithParam<EntryType> {
 protected:
  void SetUp() override {
    std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    std::replace(name.begin(), name.end(), '/', '-');
    folder_ = fs::path(testing::TempDir()) / StrCat("searcher-", name, "-", getpid());
    fs::remove_all(folder_);
    ASSERT_TRUE(WriteTinyModel(folder_ / "model", 1).ok());
    if (GetParam() == EntryType::kFloat32) {
      const absl::Status status = SetConfig(
          folder_ / "model",
          {{"model_type", "longllama"}, {"mem_layers", {1, 2}}, {"mem_dtype", "float32"}});
      ASSERT_TRUE(status.ok()) << status;
    }
    device_ = *compute::Device::Create("cpu", 2);
    auto model = LoadTinyModel(device_.get(), folder_ / "model");
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    auto memory = Memory::Open(folder_ / "memory", {.mode = storage::OpenMode::kCreate});
    ASSERT_TRUE(memory.ok()) << memory.status();
    memory_ = *std::move(memory);
    IngestOptions options;
    options.window = 64;
    options.overlap = 16;
    options.encoding = "window-local";
    options.on_document = [this](const IngestedDocument& d) { ids_.push_back(d.id); };
    auto ingester = Ingester::Create(memory_.get(), model_.get(), options);
    ASSERT_TRUE(ingester.ok()) << ingester.status();
    std::mt19937 random(7);
    for (int d = 0; d < 3; ++d) {
      std::string text;
      for (int i = 0; i < 700; ++i)
        text += static_cast<char>(random() % 4 == 0 ? ' ' : 'a' + random() % 26);
      if (d == 1) text.replace(200, kRepeats, kRepeats, '_');
      const auto document = documents::MakeTextDocument("t", StrCat("d", d), text);
      ASSERT_TRUE((*ingester)->Add(*document, d == 0 ? "first" : "others").ok());
    }
    ASSERT_TRUE((*ingester)->Finish().ok());
    ASSERT_EQ(memory_->settings()->entry_type, GetParam());
    size_t n_sinks = 0;
    for (const LiveWindow& window : memory_->Current()->windows) {
      for (const auto& range : window.sinks) n_sinks += range.n_tokens;
    }
    ASSERT_EQ(n_sinks, kRepeats + 2);  // and what follows them
    const auto block = memory_->store().GetBlock(memory_->Current()->windows[0].slot_begin, 1);
    ASSERT_TRUE(block.ok()) << block.status();
    ASSERT_EQ(block->keys.type(), GetParam());
    ASSERT_EQ(block->values.type(), GetParam());
    queries_.resize(kPositions * kTinyHeads * kTinyHeadDim);
    std::normal_distribution<float> normal(0.0f, 2.0f);
    for (float& q : queries_) q = normal(random);
    local_lse_.assign(kPositions * kTinyHeads, 1.0f);
  }
  void TearDown() override {
    memory_.reset();
    fs::remove_all(folder_);
  }

  model::MemoryQuery Query(int layer) const {
    model::MemoryQuery query;
    query.memory_layer = layer;
    query.queries = queries_.data();
    query.local_lse = local_lse_.data();
    query.n_queries = kPositions;
    query.n_heads = kTinyHeads;
    query.n_kv_heads = kTinyKvHeads;
    query.head_dim = kTinyHeadDim;
    query.scale = 0.35f;
    return query;
  }
  static bool IsSink(const LiveWindow& window, int64_t token) {
    return std::any_of(window.sinks.begin(), window.sinks.end(), [&](const auto& range) {
      return token >= range.begin && token < range.begin + range.n_tokens;
    });
  }
  // Attention of one query head over its `top_k` best keys among the windows that `allows` names.
  struct Expected {
    double lse = -INFINITY;
    std::vector<double> output = std::vector<double>(kTinyHeadDim, 0.0);
  };
  Expected Reference(int layer, int64_t t, int64_t h, int top_k,
                     const std::function<bool(const LiveWindow&)>& allows) {
    struct Scored {
      double score;
      Slot slot;
      std::vector<double> value;
    };
    std::vector<Scored> scored;
    const auto view = memory_->Current();
    for (const LiveWindow& window : view->windows) {
      if (!allows(window)) continue;
      const auto block = *memory_->store().GetBlock(window.slot_begin, layer);
      for (int64_t j = 0; j < block.n_tokens; ++j) {
        if (IsSink(window, j)) continue;
        const int64_t row = ((h / kGroup) * block.n_tokens + j) * kTinyHeadDim;
        Scored s{0.0, window.slot_begin + j, {}};
        for (int64_t i = 0; i < kTinyHeadDim; ++i) {
          s.score += static_cast<double>(queries_[(t * kTinyHeads + h) * kTinyHeadDim + i]) *
                     static_cast<float>(block.keys[row + i]);
          s.value.push_back(static_cast<float>(block.values[row + i]));
        }
        scored.push_back(std::move(s));
      }
    }
    std::sort(scored.begin(), scored.end(),
              [](const Scored& a, const Scored& b) { return a.score > b.score; });
    if (static_cast<int>(scored.size()) > top_k) scored.resize(top_k);
    Expected expected;
    if (scored.empty()) return expected;
    double sum = 0.0;
    for (const Scored& s : scored) sum += std::exp(0.35 * (s.score - scored[0].score));
    expected.lse = 0.35 * scored[0].score + std::log(sum);
    for (const Scored& s : scored) {
      const double weight = std::exp(0.35 * s.score - expected.lse);
      for (int64_t i = 0; i < kTinyHeadDim; ++i) expected.output[i] += weight * s.value[i];
    }
    return expected;
  }
  void ExpectMatches(MemorySearcher& searcher, int top_k,
                     const std::function<bool(const LiveWindow&)>& allows) {
    for (int layer = 0; layer < 2; ++layer) {
      std::vector<float> output(queries_.size());
      std::vector<float> lse(kPositions * kTinyHeads);
      const absl::Status status = searcher.Attend(Query(layer), output.data(), lse.data());
      ASSERT_TRUE(status.ok()) << status;
      for (int64_t t = 0; t < kPositions; ++t) {
        for (int64_t h = 0; h < kTinyHeads; ++h) {
          const Expected expected = Reference(layer, t, h, top_k, allows);
          const int64_t row = t * kTinyHeads + h;
          if (std::isinf(expected.lse)) {
            EXPECT_EQ(lse[row], -INFINITY);
          } else {
            EXPECT_NEAR(lse[row], expected.lse, 1e-4);
          }
          for (int64_t i = 0; i < kTinyHeadDim; ++i) {
            EXPECT_NEAR(output[row * kTinyHeadDim + i], expected.output[i], 1e-4);
          }
        }
      }
    }
  }
  std::unique_ptr<MemorySearcher> Searcher(const SearchOptions& options) {
    auto searcher = MemorySearcher::Create(device_.get(), memory_->Current(), options);
    EXPECT_TRUE(searcher.ok()) << searcher.status();
    return *std::move(searcher);
  }

  fs::path folder_;
  std::unique_ptr<compute::Device> device_;
  std::unique_ptr<model::Transformer> model_;
  std::unique_ptr<Memory> memory_;
  std::vector<std::string> ids_;
  std::vector<float> queries_;
  std::vector<float> local_lse_;
};

bool Everything(const LiveWindow&) { return true; }

TEST_P(SearcherTest, ExactIsTheSoftmaxOverTheBestKeys) {
  ExpectMatches(*Searcher({.mode = SearchMode::kExact, .top_k = 7}), 7, Everything);
}

TEST_P(SearcherTest, DenseIsTheSoftmaxOverAllKeys) {
  ExpectMatches(*Searcher({.mode = SearchMode::kDense}), 1 << 20, Everything);
}

TEST_P(SearcherTest, CollectionsAndDocumentsRestrictTheSearchItself) {
  const auto view = memory_->Current();
  SearchOptions options{.mode = SearchMode::kExact, .top_k = 5};
  options.scope.collections = {"others"};
  ExpectMatches(*Searcher(options), 5,
                [&](const LiveWindow& w) { return view->documents[w.document].IsIn("others"); });
  options.scope.collections.clear();
  options.scope.documents = {ids_[1].substr(0, 8)};
  ExpectMatches(*Searcher(options), 5,
                [&](const LiveWindow& w) { return view->documents[w.document].id == ids_[1]; });
}

TEST_P(SearcherTest, UnknownScopeIsNotFound) {
  for (const QueryScope& scope :
       {QueryScope{{"nowhere"}, {}}, QueryScope{{}, {"0123456789abcdef"}}}) {
    SearchOptions options;
    options.scope = scope;
    EXPECT_TRUE(absl::IsNotFound(
        MemorySearcher::Create(device_.get(), memory_->Current(), options).status()));
  }
}

TEST_P(SearcherTest, DeletedDocumentsAreNotFound) {
  const auto view = memory_->Current();
  ASSERT_TRUE(memory_->DeleteDocuments({view->documents[0].number}).ok());
  ExpectMatches(*Searcher({.mode = SearchMode::kExact, .top_k = 6}), 6, Everything);
}

TEST_P(SearcherTest, IndexedSegmentsObeyDeletionsAndScopes) {
  // Flat finds everything: what it returns is exact, so that only filters can make a difference.
  const auto rebuilt = Rebuild(*device_, memory_.get(), "Flat", Progress());
  ASSERT_TRUE(rebuilt.ok()) << rebuilt.status();
  auto view = memory_->Current();
  ASSERT_EQ(view->segments.size(), 1u);
  ASSERT_FALSE(view->segments[0]->layers.empty()) << view->segments[0]->damage;
  ExpectMatches(*Searcher({.top_k = 6}), 6, Everything);
  SearchOptions options{.top_k = 6};
  options.scope.collections = {"others"};
  ExpectMatches(*Searcher(options), 6,
                [&](const LiveWindow& w) { return view->documents[w.document].IsIn("others"); });
  ASSERT_TRUE(memory_->DeleteDocuments({view->documents[1].number}).ok());
  ExpectMatches(*Searcher({.top_k = 6}), 6, Everything);
}

TEST_P(SearcherTest, SearchIsTheSameWithACacheThatHoldsNothing) {
  memory_.reset();
  auto memory =
      Memory::Open(folder_ / "memory", {.mode = storage::OpenMode::kRead, .cache_bytes = 1});
  ASSERT_TRUE(memory.ok()) << memory.status();
  memory_ = *std::move(memory);
  ExpectMatches(*Searcher({.mode = SearchMode::kExact, .top_k = 9}), 9, Everything);
}

TEST_P(SearcherTest, EmptyMemoryGivesEmptyPartials) {
  const auto view = memory_->Current();
  std::vector<storage::DocumentNumber> all;
  for (const auto& document : view->documents) all.push_back(document.number);
  ASSERT_TRUE(memory_->DeleteDocuments(all).ok());
  ExpectMatches(*Searcher({.mode = SearchMode::kExact}), 16, Everything);
  ExpectMatches(*Searcher({.mode = SearchMode::kDense}), 16, Everything);
}

TEST_P(SearcherTest, MassIsTheShareOfTheWholeSoftmax) {
  auto searcher = Searcher({.mode = SearchMode::kExact, .top_k = 4});
  std::vector<float> output(queries_.size());
  std::vector<float> lse(kPositions * kTinyHeads);
  double expected = 0.0;
  for (int layer = 0; layer < 2; ++layer) {
    ASSERT_TRUE(searcher->Attend(Query(layer), output.data(), lse.data()).ok());
    for (size_t row = 0; row < lse.size(); ++row) {
      expected += 1.0 / (1.0 + std::exp(local_lse_[row] - lse[row]));
    }
  }
  double mass = 0.0;
  for (const SlotMass& slot : searcher->Mass()) {
    for (float layer : slot.mass) mass += layer;
  }
  EXPECT_NEAR(mass, expected, 1e-3);
  EXPECT_EQ(searcher->n_rows(), kPositions * kTinyHeads);
  const auto mass_by_slot = searcher->Mass();
  const auto passages = PassagesByMass(*searcher, mass_by_slot, 100);
  ASSERT_TRUE(passages.ok()) << passages.status();
  double share = 0.0;
  for (const Passage& passage : *passages) {
    share += passage.mass;
    EXPECT_EQ(passage.text.size(), passage.end - passage.start);
  }
  EXPECT_LE(share, 1.0);
  EXPECT_GT(share, 0.0);
  EXPECT_TRUE(std::is_sorted(passages->begin(), passages->end(),
                             [](const Passage& a, const Passage& b) { return a.mass > b.mass; }));
}

TEST_P(SearcherTest, SessionWindowsAreSearchedBesideTheStore) {
  const auto view = memory_->Current();
  const auto window = memory_->store().GetWindow(view->windows[0].slot_begin);
  ASSERT_TRUE(window.ok());
  const model::WindowTokens tokens{window->context_ids, window->ids};
  auto encoded = model_->Encode({&tokens, 1});
  ASSERT_TRUE(encoded.ok());
  // Without the stored copy of the window, the session's copy must give the same result.
  auto with_store = Searcher({.mode = SearchMode::kDense});
  std::vector<float> output(queries_.size());
  std::vector<float> expected_lse(kPositions * kTinyHeads);
  ASSERT_TRUE(with_store->Attend(Query(0), output.data(), expected_lse.data()).ok());
  SearchOptions options{.mode = SearchMode::kDense};
  auto searcher = Searcher(options);
  searcher->AddSessionWindow((*encoded)[0]);
  std::vector<float> lse(kPositions * kTinyHeads);
  ASSERT_TRUE(searcher->Attend(Query(0), output.data(), lse.data()).ok());
  // Twice the same keys in the softmax: more mass than once, at most twice.
  for (size_t row = 0; row < lse.size(); ++row) {
    EXPECT_GT(lse[row], expected_lse[row]);
    EXPECT_LE(lse[row], expected_lse[row] + std::log(2.0) + 1e-3);
  }
  // Exact search gives the session's keys no source.
  auto exact = Searcher({.mode = SearchMode::kExact, .top_k = 1000000});
  exact->AddSessionWindow((*encoded)[0]);
  ASSERT_TRUE(exact->Attend(Query(0), output.data(), lse.data()).ok());
  for (const SlotMass& slot : exact->Mass()) EXPECT_TRUE(exact->Allows(slot.slot));
}

TEST_P(SearcherTest, AuditOfAnExactSearchMissesNoNeedle) {
  auto searcher = Searcher({.mode = SearchMode::kExact, .top_k = 1 << 12, .audit = true});
  std::vector<float> output(queries_.size());
  std::vector<float> lse(kPositions * kTinyHeads);
  for (int layer = 0; layer < 2; ++layer) {
    ASSERT_TRUE(searcher->Attend(Query(layer), output.data(), lse.data()).ok());
  }
  const AuditResult audit = searcher->Audit();
  ASSERT_EQ(audit.captured_mass.size(), 2u);
  for (int layer = 0; layer < 2; ++layer) {
    EXPECT_NEAR(audit.captured_mass[layer], 1.0, 1e-3);
    EXPECT_EQ(audit.needle_recall[layer], 1.0);
  }
  auto narrow = Searcher({.mode = SearchMode::kExact, .top_k = 1, .audit = true});
  for (int layer = 0; layer < 2; ++layer) {
    ASSERT_TRUE(narrow->Attend(Query(layer), output.data(), lse.data()).ok());
  }
  EXPECT_LT(narrow->Audit().captured_mass[0], 0.9);
}

TEST_P(SearcherTest, AnotherModelsQueriesAreRefused) {
  auto searcher = Searcher({});
  model::MemoryQuery query = Query(0);
  query.head_dim = 4;
  std::vector<float> output(queries_.size());
  std::vector<float> lse(kPositions * kTinyHeads);
  EXPECT_EQ(searcher->Attend(query, output.data(), lse.data()).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_P(SearcherTest, OnADeviceWithMemoryOfItsOwnTheResultIsTheSame) {
  compute::GuardedDevice guarded(2);
  const auto upload = [&](const std::vector<float>& numbers) {
    return *guarded.UploadConstant(numbers.data(), numbers.size() * sizeof(float));
  };
  const compute::Buffer queries = upload(queries_);
  const compute::Buffer local_lse = upload(local_lse_);
  const compute::Buffer output = *guarded.Allocate(queries.size_bytes());
  const compute::Buffer lse = *guarded.Allocate(local_lse.size_bytes());
  for (const int options_of : {0, 1, 2, 3, 4, 5, 6, 7}) {
    for (const SearchMode mode : {SearchMode::kExact, SearchMode::kDense}) {
      const bool restricted = (options_of & 1) != 0;
      const bool in_conversation = (options_of & 2) != 0;
      SCOPED_TRACE(StrCat(restricted ? "one collection" : "all", in_conversation ? ", a turn" : "",
                          mode == SearchMode::kDense ? ", dense" : ""));
      SearchOptions options;
      options.mode = mode;
      options.top_k = 12;
      options.audit = (options_of & 4) != 0;
      if (restricted) options.scope.collections = {"others"};
      auto on_host = MemorySearcher::Create(device_.get(), memory_->Current(), options);
      auto on_device = MemorySearcher::Create(&guarded, memory_->Current(), options);
      ASSERT_TRUE(on_host.ok() && on_device.ok()) << on_host.status() << on_device.status();
      EXPECT_EQ((*on_device)->place(), model::MemoryPlace::kDevice);
      EXPECT_EQ((*on_device)->n_tokens(), (*on_host)->n_tokens());
      if (in_conversation) {
        for (const int n : {3, 40}) {
          const std::vector<int32_t> ids(static_cast<size_t>(n), 'q');
          const model::WindowTokens window{.context = {}, .tokens = ids};
          auto encoded = model_->Encode({&window, 1});
          ASSERT_TRUE(encoded.ok()) << encoded.status();
          (*on_host)->AddSessionWindow((*encoded)[0]);
          (*on_device)->AddSessionWindow(std::move((*encoded)[0]));
        }
        EXPECT_EQ((*on_device)->n_session_windows(), 2u);
      }
      std::set<uint64_t> recording_ids;
      for (const int n_turns_left : {2, 1}) {
        if (in_conversation) {
          (*on_host)->TruncateSessionWindows(static_cast<size_t>(n_turns_left));
          (*on_device)->TruncateSessionWindows(static_cast<size_t>(n_turns_left));
        }
        (*on_host)->ResetMass();
        (*on_device)->ResetMass();
        for (int layer = 0; layer < 2; ++layer) {
          model::MemoryQuery query = Query(layer);
          std::vector<float> want(queries_.size()), want_lse(local_lse_.size());
          ASSERT_TRUE((*on_host)->Attend(query, want.data(), want_lse.data()).ok());
          query.queries = queries.data<float>();
          query.local_lse = local_lse.data<float>();
          const absl::Status status =
              (*on_device)->Attend(query, output.data<float>(), lse.data<float>());
          ASSERT_TRUE(status.ok()) << status;
          std::vector<float> got(want.size()), got_lse(want_lse.size());
          ASSERT_TRUE(
              guarded.CopyToHost(output.data<void>(), output.size_bytes(), got.data()).ok());
          ASSERT_TRUE(guarded.CopyToHost(lse.data<void>(), lse.size_bytes(), got_lse.data()).ok());
          for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-5);
          for (size_t i = 0; i < want_lse.size(); ++i) ASSERT_NEAR(got_lse[i], want_lse[i], 1e-5);
        }
        ExpectSameMass((*on_device)->Mass(), (*on_host)->Mass());
        const AuditResult want_audit = (*on_host)->Audit(), audit = (*on_device)->Audit();
        EXPECT_EQ(audit.n_confident, want_audit.n_confident);
        for (size_t layer = 0; layer < 2; ++layer) {
          EXPECT_NEAR(audit.captured_mass[layer], want_audit.captured_mass[layer], 1e-5);
          EXPECT_NEAR(audit.needle_recall[layer], want_audit.needle_recall[layer], 1e-5);
        }
        // A step that was recorded with other turns would not see these.
        uint64_t recording_id = 0;
        ASSERT_TRUE((*on_device)->BeginStep(&recording_id).ok());
        recording_ids.insert(recording_id);
        EXPECT_EQ((*on_device)->n_rows(), (*on_host)->n_rows());
      }
      EXPECT_EQ(recording_ids.size(), in_conversation && !options.audit ? 2u : 1u);
      EXPECT_EQ(recording_ids.contains(0), options.audit);
      for (const LiveWindow& window : memory_->Current()->windows) {
        EXPECT_EQ((*on_device)->Allows(window.slot_begin), (*on_host)->Allows(window.slot_begin));
      }
    }
  }
}

// Questions of a run, a position each, put to their searchers one by one or all at once.
class SearchTogetherTest : public SearcherTest {
 protected:
  using Searchers = std::vector<std::unique_ptr<MemorySearcher>>;
  struct Answers {
    std::vector<float> output, lse;
    std::vector<absl::Status> statuses;
    int n_searches = 0;  // of indexes
  };

  void TearDown() override {
    watched_.reset();
    current_.reset();
    SearcherTest::TearDown();
  }

  void Index(const std::string& spec) {
    const auto rebuilt = Rebuild(*device_, memory_.get(), spec, Progress());
    ASSERT_TRUE(rebuilt.ok()) << rebuilt.status();
    current_ = memory_->Current();
    watched_ = Watched(*current_, &watch_);
  }
  // One for each of `options`.
  Searchers Create(const std::vector<SearchOptions>& options) {
    Searchers searchers;
    for (const SearchOptions& own : options) {
      auto searcher = MemorySearcher::Create(device_.get(), watched_, own);
      EXPECT_TRUE(searcher.ok()) << searcher.status();
      searchers.push_back(*std::move(searcher));
    }
    return searchers;
  }
  Answers Ask(const Searchers& searchers, bool together) {
    EXPECT_EQ(searchers.size(), static_cast<size_t>(kPositions));
    Answers answers;
    watch_.n_searches = 0;
    for (int layer = 0; layer < 2; ++layer) {
      std::vector<float> output(queries_.size(), NAN), lse(local_lse_.size(), NAN);
      std::vector<model::MemoryRequest> requests;
      for (size_t i = 0; i < searchers.size(); ++i) {
        model::MemoryQuery query = Query(layer);
        query.n_queries = 1;
        query.queries += i * kTinyHeads * kTinyHeadDim;
        query.local_lse += i * kTinyHeads;
        requests.push_back({.memory = searchers[i].get(),
                            .query = query,
                            .output = output.data() + i * kTinyHeads * kTinyHeadDim,
                            .lse = lse.data() + i * kTinyHeads});
      }
      if (together) {
        requests[0].memory->AttendTogether(requests);
      } else {
        for (auto& r : requests) r.status = r.memory->Attend(r.query, r.output, r.lse);
      }
      for (const auto& request : requests) answers.statuses.push_back(request.status);
      answers.output.insert(answers.output.end(), output.begin(), output.end());
      answers.lse.insert(answers.lse.end(), lse.begin(), lse.end());
    }
    answers.n_searches = watch_.n_searches;
    return answers;
  }
  // Bit for bit; `n_layer_searches`: of an index, in a layer, by all of them together.
  void ExpectSame(const Searchers& alone, const Searchers& together, int n_layer_searches) {
    const Answers want = Ask(alone, false);
    const Answers got = Ask(together, true);
    for (const absl::Status& status : want.statuses) EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(got.statuses, want.statuses);
    EXPECT_EQ(got.output, want.output);
    EXPECT_EQ(got.lse, want.lse);
    const auto n_indexed = static_cast<int>(
        std::count_if(watched_->segments.begin(), watched_->segments.end(),
                      [](const auto& segment) { return !segment->layers.empty(); }));
    EXPECT_EQ(want.n_searches, 2 * n_indexed * kPositions);
    EXPECT_EQ(got.n_searches, 2 * n_indexed * n_layer_searches);
    for (size_t i = 0; i < alone.size(); ++i) {
      EXPECT_EQ(together[i]->n_rows(), alone[i]->n_rows());
      EXPECT_FALSE(alone[i]->Mass().empty());
      ExpectSameMass(together[i]->Mass(), alone[i]->Mass(), 0.0f);
    }
  }

  std::shared_ptr<const Generation> current_;
  WatchedIndex::Watch watch_;
  std::shared_ptr<const Generation> watched_;
};

TEST_P(SearchTogetherTest, QuestionsShareAReadOfTheKeysAndFindWhatEachFindsAlone) {
  const std::vector<SearchOptions> same(kPositions, {.top_k = 6});
  for (const char* spec : {"exact", "Scan2", "Scan4", "Scan8"}) {
    SCOPED_TRACE(spec);
    Index(spec);
    ExpectSame(Create(same), Create(same), 1);
  }
  // FAISS may add up in another order where there are more queries.
  Index("IVF4,Flat");
  ExpectSame(Create(same), Create(same), kPositions);
}

TEST_P(SearchTogetherTest, NeighboursThatSearchSomethingElseAreAskedByThemselves) {
  Index("Scan4");
  const SearchOptions all{.top_k = 6};
  SearchOptions some = all;
  some.scope.collections = {"others"};
  SearchOptions fewer = all;
  fewer.top_k = 3;
  for (const SearchOptions& other : {some, fewer}) {
    const std::vector<SearchOptions> options{all, all, other, all, all};
    ExpectSame(Create(options), Create(options), 3);
  }
  SearchOptions audited = all;
  audited.audit = true;
  const std::vector<SearchOptions> options{audited, all, all, audited, all};
  ExpectSame(Create(options), Create(options), 4);
  // A conversation has keys of its own.
  const std::vector<int32_t> ids(40, 'q');
  const model::WindowTokens window{.context = {}, .tokens = ids};
  const Searchers alone = Create({all, all, all, all, all});
  const Searchers together = Create({all, all, all, all, all});
  for (const Searchers* searchers : {&alone, &together}) {
    auto encoded = model_->Encode({&window, 1});
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    (*searchers)[2]->AddSessionWindow(std::move((*encoded)[0]));
  }
  ExpectSame(alone, together, 3);
}

TEST_P(SearchTogetherTest, AnErrorIsThatOfTheQuestionThatHasIt) {
  Index("Scan4");
  const std::vector<SearchOptions> same(kPositions, {.top_k = 6});
  // What fails for all together is asked again one by one, and counted once.
  watch_.refuses_several = true;
  ExpectSame(Create(same), Create(same), 1 + kPositions);
  watch_.refuses_several = false;
  const std::atomic<bool> cancelled{true};
  std::vector<SearchOptions> options = same;
  options[1].progress = Progress(nullptr, &cancelled);
  const Answers answers = Ask(Create(options), true);
  const Answers want = Ask(Create(same), false);
  for (size_t i = 0; i < answers.statuses.size(); ++i) {
    EXPECT_EQ(answers.statuses[i].ok(), i % kPositions != 1) << answers.statuses[i];
  }
  EXPECT_EQ(std::vector<float>(answers.lse.begin() + 2 * kTinyHeads,
                               answers.lse.begin() + kPositions * kTinyHeads),
            std::vector<float>(want.lse.begin() + 2 * kTinyHeads,
                               want.lse.begin() + kPositions * kTinyHeads));
}

INSTANTIATE_TEST_SUITE_P(EntryTypes, SearchTogetherTest,
                         testing::Values(EntryType::kBFloat16, EntryType::kFloat32),
                         [](const auto& info) { return std::string(EntryTypeName(info.param)); });

INSTANTIATE_TEST_SUITE_P(EntryTypes, SearcherTest,
                         testing::Values(EntryType::kBFloat16, EntryType::kFloat32),
                         [](const auto& info) { return std::string(EntryTypeName(info.param)); });

}  // namespace
}  // namespace fovea::memory
