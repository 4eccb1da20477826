// Perplexity of a text by windows, with the products of many rows in float32 and in 8 bits.
//   perplexity MODEL ADAPTER|none TEXT [WINDOWS] [WINDOW_TOKENS]
// Each window is evaluated by itself, from position 0; its first token is given.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "compute/device.h"
#include "model/transformer.h"

namespace fovea {
namespace {

absl::StatusOr<double> Perplexity(const model::LoadOptions& options, const std::string& text,
                                  int64_t n_windows, int64_t window_tokens,
                                  std::string_view precision) {
  ASSIGN_OR_RETURN(const auto device, compute::Device::Create("cpu", 0, precision));
  ASSIGN_OR_RETURN(const auto model, model::Transformer::Load(device.get(), options));
  const std::vector<int32_t> ids = model->tokenizer().Encode(text).ids;
  const int64_t vocabulary = model->config().vocab_size;
  double sum = 0.0;
  int64_t n = 0;
  std::vector<float> logits;
  for (int64_t w = 0; w < n_windows; ++w) {
    const int64_t begin = w * window_tokens;
    if (begin + window_tokens > static_cast<int64_t>(ids.size())) break;
    model::LocalContext context;
    RETURN_IF_ERROR(model->Forward({ids.data() + begin, static_cast<size_t>(window_tokens)},
                                   &context, nullptr, &logits, true));
    for (int64_t t = 0; t + 1 < window_tokens; ++t, ++n) {
      const float* row = logits.data() + t * vocabulary;
      const float largest = *std::max_element(row, row + vocabulary);
      double total = 0.0;
      for (int64_t i = 0; i < vocabulary; ++i) total += std::exp(row[i] - largest);
      sum += std::log(total) + largest - row[ids[static_cast<size_t>(begin + t + 1)]];
    }
  }
  return std::exp(sum / static_cast<double>(n));
}

int Main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: %s MODEL ADAPTER|none TEXT [WINDOWS] [WINDOW_TOKENS]\n", argv[0]);
    return 2;
  }
  model::LoadOptions options;
  options.model = argv[1];
  if (std::string_view(argv[2]) != "none") options.adapter = argv[2];
  std::ifstream file(argv[3]);
  std::stringstream text;
  text << file.rdbuf();
  const int64_t n_windows = argc > 4 ? std::atoll(argv[4]) : 16;
  const int64_t window_tokens = argc > 5 ? std::atoll(argv[5]) : 1024;
  double values[2];
  for (const int i : {0, 1}) {
    const absl::StatusOr<double> value =
        Perplexity(options, text.str(), n_windows, window_tokens, i == 0 ? "float32" : "int8");
    if (!value.ok()) {
      std::fprintf(stderr, "%s\n", std::string(value.status().message()).c_str());
      return 1;
    }
    values[i] = *value;
  }
  std::printf("{\"bench\": \"perplexity\", \"float32\": %.4f, \"int8\": %.4f, \"ratio\": %.5f}\n",
              values[0], values[1], values[1] / values[0]);
  return 0;
}

}  // namespace
}  // namespace fovea

int main(int argc, char** argv) { return fovea::Main(argc, argv); }
