// What became of everything that an ingest was given.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "memory/ingest/ingested_document.h"

namespace fovea::answer {

struct IngestSummary {
  // One for each source. Several may have the same text.
  std::vector<memory::IngestedDocument> documents;
  // Adds the document, and its tokens where its text was not there yet.
  void Add(const memory::IngestedDocument& document);
  std::set<std::string> ids;  // of the texts that are stored
  uint64_t tokens = 0;        // of all texts, each once
  uint64_t encoded_tokens = 0;
  double seconds = 0.0;
  bool dry_run = false;  // nothing was done: what would be
  struct Warning {
    std::string source;
    std::string warning;  // what of it is not stored
  };
  std::vector<Warning> warnings;
  struct Skipped {
    std::string kind;  // "PNG image"
    int64_t n_files = 0;
    std::string first;  // the first of them
  };
  bool has_folders = false;      // files of folders were looked at
  std::vector<Skipped> skipped;  // of folders; most files first
  void AddSkipped(const std::string& kind, const std::string& file);
  double tokens_per_second() const;  // encoded ones
};

}  // namespace fovea::answer
