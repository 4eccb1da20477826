// For tests of those who ask: an answerer whose answers a test makes up, one by one.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "answer/answerer.h"

namespace fovea::answer {

// What is left is Run.
class ScriptedAnswerer : public Answerer {
 public:
  std::vector<absl::StatusOr<Answer>> RunAll(std::span<const Request> requests) const override {
    std::vector<absl::StatusOr<Answer>> answers;
    for (const Request& request : requests) answers.push_back(Run(request));
    return answers;
  }
  absl::StatusOr<std::vector<memory::Passage>> Search(const SearchRequest&) const override {
    return absl::UnimplementedError("a scripted answerer finds no passages");
  }
  SharedModel::Statistics statistics() const override { return {}; }
  std::string Hint(const AskOptions&) const override { return ""; }
};

}  // namespace fovea::answer
