// The file of a text index as versions without checksums made it.
#pragma once

#include <sqlite3.h>

#include <filesystem>
#include <span>
#include <string>

#include "absl/strings/str_cat.h"
#include "index/text_index.h"
#include "index/text_words.h"

namespace fovea::index {

// Aborts where SQLite does not take it.
inline void MakePlainTextIndex(const std::filesystem::path& path, int version,
                               std::span<const PassageText> passages, uint64_t next_slot) {
  sqlite3* db = nullptr;
  const auto execute = [&db](const std::string& sql) {
    if (sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) abort();
  };
  if (sqlite3_open(path.c_str(), &db) != SQLITE_OK) abort();
  execute("PRAGMA journal_mode = WAL");
  execute("BEGIN");
  execute(
      "CREATE VIRTUAL TABLE passages USING fts5(text, content='', tokenize=\"porter unicode61 "
      "remove_diacritics 2 categories 'L* M* N* Co'\")");
  execute("CREATE TABLE state(id INTEGER PRIMARY KEY CHECK (id = 0), next_slot INTEGER NOT NULL)");
  execute(absl::StrCat("INSERT INTO state VALUES (0, ", next_slot, ")"));
  execute("PRAGMA application_id = 1718580852");  // "fovt"
  execute(absl::StrCat("PRAGMA user_version = ", version));
  for (const PassageText& passage : passages) {
    sqlite3_stmt* insert = nullptr;
    const std::string words = PassageWords(passage.text);
    if (sqlite3_prepare_v2(db, "INSERT INTO passages(rowid, text) VALUES (?1, ?2)", -1, &insert,
                           nullptr) != SQLITE_OK ||
        sqlite3_bind_int64(insert, 1, static_cast<int64_t>(passage.slot_begin)) != SQLITE_OK ||
        sqlite3_bind_text(insert, 2, words.data(), static_cast<int>(words.size()), SQLITE_STATIC) !=
            SQLITE_OK ||
        sqlite3_step(insert) != SQLITE_DONE || sqlite3_finalize(insert) != SQLITE_OK) {
      abort();
    }
  }
  execute("COMMIT");
  if (sqlite3_close(db) != SQLITE_OK) abort();
}

}  // namespace fovea::index
