#include "model/parity_fixture.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <optional>

#include "model/reference_session.h"
#include "model/transformer.h"
#include "model/weights/json_file.h"
#include "model/weights/safetensors_file.h"

namespace fovea::model {
namespace {

using Segment = ReferenceSession::Segment;

// The tensors of a fixture by name.
class FixtureTensors {
 public:
  static absl::StatusOr<FixtureTensors> Open(const std::filesystem::path& path) {
    FixtureTensors tensors;
    ASSIGN_OR_RETURN(tensors.file_, SafetensorsFile::Open(path, IntegerTensors::kRead));
    for (const StoredTensor& tensor : tensors.file_->tensors()) {
      tensors.floats_.emplace(tensor.name, &tensor);
    }
    for (const StoredIntegers& tensor : tensors.file_->integers()) {
      tensors.integers_.emplace(tensor.name, &tensor);
    }
    return tensors;
  }

  bool Contains(const std::string& name) const {
    return floats_.contains(name) || integers_.contains(name);
  }

  // [n_rows, n]; a tensor without a batch axis has one row.
  absl::StatusOr<std::vector<std::vector<int32_t>>> Ids(const std::string& name) const {
    const auto it = integers_.find(name);
    if (it == integers_.end()) return Missing(name);
    const StoredIntegers& tensor = *it->second;
    const bool batched = tensor.shape.size() == 2;
    if (tensor.shape.size() != 1 && !batched) return BadShape(name, tensor.shape.size());
    const int64_t n_rows = batched ? tensor.shape[0] : 1;
    const int64_t n = tensor.shape.back();
    std::vector<std::vector<int32_t>> rows(static_cast<size_t>(n_rows));
    for (int64_t r = 0; r < n_rows; ++r) {
      for (int64_t i = 0; i < n; ++i) {
        rows[static_cast<size_t>(r)].push_back(static_cast<int32_t>(tensor.Value(r * n + i)));
      }
    }
    return rows;
  }

  // All values of a float tensor.
  absl::StatusOr<std::vector<float>> Floats(const std::string& name) const {
    const auto it = floats_.find(name);
    if (it == floats_.end()) return Missing(name);
    const StoredTensor& tensor = *it->second;
    const auto n =
        static_cast<int64_t>(tensor.size_bytes) / compute::Traits(tensor.dtype).block_bytes;
    std::vector<float> values(static_cast<size_t>(n));
    compute::DequantizeRow(tensor.dtype, tensor.data, n, values.data());
    return values;
  }

 private:
  absl::Status Missing(const std::string& name) const {
    return absl::NotFoundError(StrCat(file_->path(), ": tensor ", name, " is missing"));
  }
  absl::Status BadShape(const std::string& name, size_t n_dimensions) const {
    return absl::InvalidArgumentError(StrCat(file_->path(), ": ", name, ": ", n_dimensions,
                                             " dimensions, want 1, or 2 with a batch"));
  }

  std::unique_ptr<SafetensorsFile> file_;
  std::map<std::string, const StoredTensor*> floats_;
  std::map<std::string, const StoredIntegers*> integers_;
};

// What a session consists of, for one row of a batch.
struct State {
  State(compute::Device* device, Transformer* model, EntryType type)
      : memory(device, type), session(model, &memory) {}
  DenseMemory memory;
  ReferenceSession session;
};

class FixtureRunner {
 public:
  FixtureRunner(compute::Device* device, Transformer* model, const FixtureTensors& tensors,
                const Json& cases)
      : device_(device), model_(model), tensors_(tensors), cases_(cases) {}

  absl::StatusOr<ParityCase> Run(const Json& entry) {
    ParityCase result;
    differences_.clear();
    ASSIGN_OR_RETURN(result.name, JsonString(entry, "name", ""));
    ASSIGN_OR_RETURN(const int64_t n_rows, BatchSize(entry));
    for (int64_t row = 0; row < n_rows; ++row) {
      absl::StatusOr<std::unique_ptr<State>> state = RunRow(entry, row, &result);
      if (!state.ok()) return Annotate(state.status(), StrCat("case ", result.name));
    }
    if (differences_.empty()) return result;
    std::sort(differences_.begin(), differences_.end());
    const auto at = [this](double share) {
      return static_cast<double>(
          differences_[static_cast<size_t>(share * static_cast<double>(differences_.size() - 1))]);
    };
    result.max = at(1.0);
    result.median = at(0.5);
    result.p999 = at(0.999);
    return result;
  }

 private:
  absl::StatusOr<int64_t> BatchSize(const Json& entry) const {
    ASSIGN_OR_RETURN(const Json* calls, Calls(entry));
    if (calls->empty()) return int64_t{1};
    ASSIGN_OR_RETURN(const std::string input, JsonString((*calls)[0], "input", ""));
    ASSIGN_OR_RETURN(const auto rows, tensors_.Ids(input));
    return static_cast<int64_t>(rows.size());
  }

  static absl::StatusOr<const Json*> Calls(const Json& entry) {
    const Json* calls = JsonFind(entry, "calls");
    if (calls == nullptr || !calls->is_array()) {
      return absl::InvalidArgumentError("key calls: want a list");
    }
    return calls;
  }

  std::unique_ptr<State> NewState() const {
    return std::make_unique<State>(device_, model_, model_->memory_config().entry_type);
  }

  // The state that a case starts from. A state at the end of another case is made again.
  absl::StatusOr<std::unique_ptr<State>> StartOf(const Json& entry, int64_t row) {
    constexpr std::string_view kEndOf = "state at the end of case ";
    ASSIGN_OR_RETURN(const std::string start, JsonString(entry, "start", "empty"));
    if (start == "empty") return NewState();
    if (start.starts_with(kEndOf)) {
      for (const Json& other : cases_) {
        if (other.value("name", "") != start.substr(kEndOf.size())) continue;
        return RunRow(other, row, nullptr);
      }
    }
    return absl::InvalidArgumentError(StrCat("unknown start '", start, "'"));
  }

  // Runs a case on one row of its batch. `result` null: only for the state at its end.
  absl::StatusOr<std::unique_ptr<State>> RunRow(const Json& entry, int64_t row,
                                                ParityCase* result) {
    ASSIGN_OR_RETURN(std::unique_ptr<State> state, StartOf(entry, row));
    ASSIGN_OR_RETURN(const Json* calls, Calls(entry));
    ASSIGN_OR_RETURN(const std::string name, JsonString(entry, "name", ""));
    std::vector<std::unique_ptr<State>> ingested;  // alone, to be merged
    for (const Json& call : *calls) {
      ASSIGN_OR_RETURN(const std::string note, JsonString(call, "note", ""));
      if (note.find("from an empty state") != std::string::npos) {
        ingested.push_back(NewState());
        RETURN_IF_ERROR(RunCall(call, name, row, ingested.back().get(), result));
        continue;
      }
      if (note.find("concatenation") != std::string::npos) {
        for (const auto& part : ingested) {
          RETURN_IF_ERROR(state->memory.Append(part->memory.entries()));
        }
      }
      RETURN_IF_ERROR(RunCall(call, name, row, state.get(), result));
    }
    return state;
  }

  absl::Status RunCall(const Json& call, const std::string& case_name, int64_t row, State* state,
                       ParityCase* result) {
    ASSIGN_OR_RETURN(const std::string kind, JsonString(call, "call", ""));
    if (kind == "prompt") return RunPrompt(call, case_name, row, state, result);
    if (kind == "steps") return RunSteps(call, row, state, result);
    return absl::InvalidArgumentError(StrCat("unknown call '", kind, "'"));
  }

  absl::StatusOr<std::vector<int32_t>> IdsOf(const Json& call, std::string_view key,
                                             int64_t row) const {
    ASSIGN_OR_RETURN(const std::string name, JsonString(call, key, ""));
    ASSIGN_OR_RETURN(auto rows, tensors_.Ids(name));
    if (row >= static_cast<int64_t>(rows.size())) {
      return absl::InvalidArgumentError(StrCat(name, ": row ", row, " of ", rows.size()));
    }
    return std::move(rows[static_cast<size_t>(row)]);
  }

  absl::Status RunPrompt(const Json& call, const std::string& case_name, int64_t row, State* state,
                         ParityCase* result) {
    ASSIGN_OR_RETURN(const std::vector<int32_t> ids, IdsOf(call, "input", row));
    ReferenceSession::Call run{.ids = ids};
    ASSIGN_OR_RETURN(run.use_cache, JsonBool(call, "use_cache", true));
    ASSIGN_OR_RETURN(run.last_context_length, JsonInteger(call, "last_context_length", 0));
    if (JsonFind(call, "attention_mask") != nullptr) {
      ASSIGN_OR_RETURN(const std::vector<int32_t> mask, IdsOf(call, "attention_mask", row));
      while (run.n_padding < static_cast<int64_t>(mask.size()) &&
             mask[static_cast<size_t>(run.n_padding)] == 0) {
        ++run.n_padding;
      }
      if (std::count(mask.begin(), mask.end(), 0) != run.n_padding) {
        return absl::UnimplementedError("an attention mask with holes: want left padding");
      }
    }
    std::vector<Segment> segments;
    std::vector<float> logits;
    RETURN_IF_ERROR(state->session.Run(run, &logits, /*all_logits=*/true, &segments));
    if (result == nullptr) return absl::OkStatus();

    RETURN_IF_ERROR(CompareLogits(call, row, run.n_padding, logits));
    std::vector<Segment> expected;
    if (const Json* list = JsonFind(call, "segments"); list != nullptr && list->is_array()) {
      for (const Json& s : *list) {
        if (!s.is_array() || s.size() != 3) {
          return absl::InvalidArgumentError("key segments: want lists of three numbers");
        }
        expected.push_back({JsonToInteger(s[0]).value_or(-1), JsonToInteger(s[1]).value_or(-1),
                            JsonToInteger(s[2]).value_or(-1)});
      }
      result->sizes_equal &= segments == expected;
    }
    RETURN_IF_ERROR(CompareSizes(call, *state, result));
    return CompareMemory(call, case_name, row, *state, result);
  }

  absl::Status RunSteps(const Json& call, int64_t row, State* state, ParityCase* result) {
    ASSIGN_OR_RETURN(const std::vector<int32_t> ids, IdsOf(call, "ids", row));
    std::vector<float> logits;
    std::vector<int64_t> overflows;
    for (size_t i = 0; i < ids.size(); ++i) {
      std::vector<float> step;
      const int64_t before = state->session.local_length();
      RETURN_IF_ERROR(state->session.Run({.ids = {&ids[i], 1}}, &step));
      if (state->session.local_length() <= before) overflows.push_back(static_cast<int64_t>(i));
      logits.insert(logits.end(), step.begin(), step.end());
    }
    if (result == nullptr) return absl::OkStatus();
    RETURN_IF_ERROR(CompareLogits(call, row, /*n_padding=*/0, logits));
    if (const Json* list = JsonFind(call, "overflow_at_steps"); list != nullptr) {
      std::vector<int64_t> expected;
      for (const Json& step : *list) expected.push_back(JsonToInteger(step).value_or(-1));
      result->overflow_equal &= overflows == expected;
    }
    return CompareSizes(call, *state, result);
  }

  // The fixture's logits are [batch, n, vocab_size] or [n, vocab_size].
  absl::Status CompareLogits(const Json& call, int64_t row, int64_t n_padding,
                             const std::vector<float>& logits) {
    ASSIGN_OR_RETURN(const std::string name, JsonString(call, "logits", ""));
    if (name.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::vector<float> expected, tensors_.Floats(name));
    const size_t begin = static_cast<size_t>(row) * logits.size();
    if (expected.size() < begin + logits.size()) {
      return absl::InvalidArgumentError(
          StrCat(name, ": ", expected.size(), " values, want ", begin + logits.size(), " or more"));
    }
    for (auto i = static_cast<size_t>(n_padding * model_->config().vocab_size); i < logits.size();
         ++i) {
      const float difference = std::abs(logits[i] - expected[begin + i]);
      differences_.push_back(std::isnan(difference) ? INFINITY : difference);
    }
    return absl::OkStatus();
  }

  absl::Status CompareSizes(const Json& call, const State& state, ParityCase* result) const {
    ASSIGN_OR_RETURN(const int64_t local, JsonInteger(call, "local_after", -1));
    ASSIGN_OR_RETURN(const int64_t memory, JsonInteger(call, "memory_after", -1));
    const bool has_memory = model_->n_mem_layers() > 0;
    result->sizes_equal &= local < 0 || local == state.session.local_length();
    result->sizes_equal &= memory < 0 || !has_memory || memory == state.session.memory_length();
    return absl::OkStatus();
  }

  // Dumped entries: [n_heads, n_tokens, head_dim] per memory layer, without a batch.
  absl::Status CompareMemory(const Json& call, const std::string& case_name, int64_t row,
                             const State& state, ParityCase* result) const {
    if (JsonFind(call, "memory_dump") == nullptr || row > 0) return absl::OkStatus();
    const MemoryEntries& entries = state.memory.entries();
    const auto& layers = model_->memory_config().mem_layers;
    const int64_t n_heads = model_->config().n_kv_heads;
    const int64_t head_dim = model_->config().head_dim;
    for (size_t m = 0; m < layers.size(); ++m) {
      for (const bool keys : {true, false}) {
        const std::string name = StrCat(case_name, keys ? ".mem_keys." : ".mem_values.", layers[m]);
        ASSIGN_OR_RETURN(const std::vector<float> expected, tensors_.Floats(name));
        const std::vector<float>& actual = (keys ? entries.keys : entries.values)[m];
        if (expected.size() != actual.size()) {
          result->sizes_equal = false;
          continue;
        }
        for (int64_t h = 0; h < n_heads; ++h) {
          for (int64_t t = 0; t < entries.n_tokens; ++t) {
            for (int64_t i = 0; i < head_dim; ++i) {
              const double difference = std::abs(
                  expected[static_cast<size_t>((h * entries.n_tokens + t) * head_dim + i)] -
                  actual[static_cast<size_t>((t * n_heads + h) * head_dim + i)]);
              result->memory_max = std::max(result->memory_max, difference);
            }
          }
        }
      }
    }
    return absl::OkStatus();
  }

  compute::Device* device_;
  Transformer* model_;
  const FixtureTensors& tensors_;
  const Json& cases_;
  std::vector<float> differences_;  // of the case that runs
};

}  // namespace

absl::StatusOr<std::vector<ParityCase>> RunParityFixture(compute::Device* device,
                                                         const std::filesystem::path& folder) {
  ASSIGN_OR_RETURN(const Json json, ReadJsonObject(folder / "cases.json"));
  const Json* cases = JsonFind(json, "cases");
  if (cases == nullptr || !cases->is_array()) {
    return absl::InvalidArgumentError(StrCat(folder / "cases.json", ": key cases: want a list"));
  }
  ASSIGN_OR_RETURN(const FixtureTensors tensors,
                   FixtureTensors::Open(folder / "cases.safetensors"));
  LoadOptions options;
  options.model = folder;
  options.needs_tokenizer = false;
  ASSIGN_OR_RETURN(const auto model, Transformer::Load(device, options));
  FixtureRunner runner(device, model.get(), tensors, *cases);
  std::vector<ParityCase> results;
  for (const Json& entry : *cases) {
    absl::StatusOr<ParityCase> result = runner.Run(entry);
    if (!result.ok()) return Annotate(result.status(), (folder / "cases.json").native());
    results.push_back(*std::move(result));
  }
  return results;
}

}  // namespace fovea::model
