#include "cli/train_options.h"

#include <cstdio>
#include <filesystem>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "cli/streams.h"
#include "cli/text_format.h"

namespace fovea::cli {
namespace {

std::string FormatReport(const train::TrainReport& report) {
  std::string text = absl::StrFormat("step %d  d %d  ", report.step, report.d) +
                     (report.n_targets > 0 ? absl::StrFormat("loss %.3f", report.loss)
                                           : std::string("no question fits into --query-tokens"));
  if (report.n_targets > 0) text += absl::StrFormat("  right %.1f%%", 100.0 * report.accuracy);
  if (!report.mass.empty()) {
    text += "  mass";
    for (const double mass : report.mass) text += absl::StrFormat(" %.3f", mass);
  }
  if (!report.r_d.empty()) {
    text += "  r_d";
    for (const double r : report.r_d) text += absl::StrFormat(" %.3f", r);
  }
  return text + absl::StrFormat("  %.0f tokens/s", report.tokens_per_s);
}

}  // namespace

absl::StatusOr<torch::Device> ParseTrainingDevice(const std::string& text) {
  if (text == "cpu") return torch::Device(torch::kCPU);
  int number = 0;
  if (text == "cuda" || (text.starts_with("cuda:") && absl::SimpleAtoi(text.substr(5), &number))) {
    if (!torch::cuda::is_available()) {
      return absl::UnavailableError(
          "this LibTorch finds no GPU: it may be one without CUDA, or there is no driver");
    }
    if (number < 0 || number >= static_cast<int>(torch::cuda::device_count())) {
      return absl::InvalidArgumentError(StrCat("no GPU ", number, ": there are ",
                                               torch::cuda::device_count(), ", counted from 0"));
    }
    return torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(number));
  }
  return absl::InvalidArgumentError(StrCat("device \"", text, "\", want cpu or cuda[:N]"));
}

absl::StatusOr<torch::Dtype> ParsePrecision(const std::string& text, const torch::Device& device) {
  if (text == "bfloat16" || (text == "auto" && device.is_cuda())) return torch::kBFloat16;
  if (text == "float32" || text == "auto") return torch::kFloat32;
  return absl::InvalidArgumentError(
      StrCat("precision \"", text, "\", want auto, float32 or bfloat16"));
}

absl::Status KeepConfiguration(const train::TrainOptions& options,
                               const train::BatchSource& batches, const Json& configuration) {
  RETURN_IF_ERROR(train::CheckRun(options, &batches));
  const std::filesystem::path path = options.folder / "configuration.json";
  std::error_code error;
  if (!options.resumes || !std::filesystem::exists(path, error)) {
    RETURN_IF_ERROR(CreateDirectories(options.folder));
    return WriteFileAtomic(path, configuration.dump(2) + "\n");
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const Json before = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!before.is_object()) return absl::DataLossError(StrCat(path, ": not a run's configuration"));
  for (const auto& [name, value] : configuration.items()) {
    const Json old = before.value(name, Json());
    if (old == value) continue;
    return absl::InvalidArgumentError(
        StrCat(path, ": the run has ", name, " ", old.dump(), ", not ", value.dump(),
               ": --resume goes on with a run as it was; to go on otherwise, begin another with "
               "--adapter ",
               Printable((options.folder / "adapter").native())));
  }
  return absl::OkStatus();
}

absl::StatusOr<ExitCode> RunTraining(train::TrainableModel* model,
                                     const train::BatchSource& batches,
                                     const train::TrainOptions& options,
                                     const train::WriteTrained& write, const std::string& what,
                                     const OutputOptions& output, ProgressBar* bar) {
  const auto report = [&](const train::TrainReport& r) {
    if (output.quiet || output.json) return;
    bar->Clear();
    std::fprintf(stderr, "%s\n", FormatReport(r).c_str());
  };
  const auto result = train::Train(model, batches, options, write, bar->progress(), report);
  bar->Clear();
  if (absl::IsCancelled(result.status())) {
    std::fprintf(stderr, "fovea: interrupted; --resume goes on from %s\n",
                 Printable((options.folder / "checkpoint").native()).c_str());
    return kFailed;
  }
  RETURN_IF_ERROR(result.status());
  if (output.json) {
    RETURN_IF_ERROR(WriteOutput(JsonLine({{"steps", result->n_steps},
                                          {"seconds", result->seconds},
                                          {"tokens_per_s", result->tokens_per_s},
                                          {what, result->written.native()}})));
  } else {
    RETURN_IF_ERROR(WriteOutput(
        absl::StrFormat("%d steps in %.1f s (%.0f tokens/s); %s: %s\n", result->n_steps,
                        result->seconds, result->tokens_per_s, what, result->written.native())));
  }
  return kDone;
}

}  // namespace fovea::cli
