// A home with a tiny model of random weights, two documents, and the program's commands on a memory
// of them.
#pragma once

#include <filesystem>
#include <string>

#include "tests/cli/run_fovea.h"
#include "tests/memory/tiny_model.h"

namespace fovea::cli {

namespace fs = std::filesystem;

inline constexpr char kOtter[] = "The otter lives by the river.\n\nThe badger digs at night.\n";
inline constexpr char kTools[] = "A hammer drives nails.\n\nA chisel cuts wood.\n";

class CommandTest : public ProgramTest {
 protected:
  void SetUp() override {
    ASSERT_TRUE(memory::WriteTinyModel(folder_ / "home/models/tiny", /*seed=*/7, 2048).ok());
    otter_ = Write("otter.txt", kOtter);
    tools_ = Write("tools.md", kTools);
    memory_ = Path("memory");
  }

  ProgramResult Ingest(const Arguments& more) const {
    Arguments arguments = {"ingest", "--memory", memory_, "--json"};
    if (!fs::exists(memory_)) {
      for (const char* word : {"--model", "tiny", "--mem-layers", "1,2", "--window", "128"}) {
        arguments.emplace_back(word);
      }
    }
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Fovea(arguments);
  }
  void IngestBoth() const {
    const ProgramResult result = Ingest({otter_, tools_});
    ASSERT_EQ(result.code, 0) << result.err;
  }
  ProgramResult Command(Arguments arguments, const std::string& input = "") const {
    arguments.insert(arguments.end(), {"--memory", memory_});
    return Fovea(arguments, input);
  }
  static Arguments Ask(const std::string& question, const Arguments& more = {}) {
    Arguments arguments = {"ask", question, "--max-tokens", "5"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  std::string otter_;
  std::string tools_;
  std::string memory_;
};

}  // namespace fovea::cli
