// Stores a file in a memory and answers a question from it: ask_file MEMORY FILE QUESTION
#include <cstdio>

#include "answer/fovea.h"

namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: ask_file MEMORY FILE QUESTION\n");
    return 2;
  }
  auto fovea = fovea::answer::Fovea::Open({.memory = argv[1], .model = "smollm2"});
  if (!fovea.ok()) return Fail(fovea.status());

  auto documents = (*fovea)->IngestFile(argv[2]);
  if (!documents.ok()) return Fail(documents.status());
  for (const auto& document : *documents) {
    if (!document.error.empty()) std::fprintf(stderr, "%s\n", document.error.c_str());
  }

  auto answer = (*fovea)->Ask(argv[3]);
  if (!answer.ok()) return Fail(answer.status());
  std::printf("%s\n", answer->text.c_str());
  for (const auto& source : answer->sources) {
    std::printf("  from %s: %s\n", source.title.c_str(), source.text.c_str());
  }
  return 0;
}
