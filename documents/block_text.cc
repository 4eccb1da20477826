#include "documents/block_text.h"

#include <algorithm>
#include <utility>

#include "base/strings.h"
#include "documents/utf8.h"

namespace fovea::documents {
namespace {

constexpr std::string_view kSpaces = " \t\r\n";

std::string_view Trimmed(std::string_view text) {
  const size_t begin = std::min(text.find_first_not_of(kSpaces), text.size());
  text.remove_prefix(begin);
  return text.substr(0, text.find_last_not_of(kSpaces) + 1);
}

}  // namespace

void BlockText::Append(std::string_view text) {
  if (in_paragraph()) paragraphs_.back() += text;
}

void BlockText::AppendCollapsed(std::string_view text) {
  if (!in_paragraph()) return;
  std::string& paragraph = paragraphs_.back();
  while (!text.empty()) {
    const size_t word = std::min(text.find_first_not_of(kSpaces), text.size());
    if (word > 0 && !paragraph.empty() && kSpaces.find(paragraph.back()) == kSpaces.npos) {
      paragraph.push_back(' ');
    }
    text.remove_prefix(word);
    const size_t end = std::min(text.find_first_of(kSpaces), text.size());
    paragraph += text.substr(0, end);
    text.remove_prefix(end);
  }
}

void BlockText::CloseParagraph(bool is_list_item) {
  if (!in_paragraph()) return;
  const std::string paragraph = std::move(paragraphs_.back());
  paragraphs_.pop_back();
  const std::string_view block = Trimmed(paragraph);
  const bool is_blank = IsBlank(block);
  if (!is_blank) {
    Deliver(block, is_list_item && after_item_ ? "\n" : "\n\n");
    after_item_ = is_list_item;
  }
  // A blank one may have notes, too; one in another (a box) does not end that one's.
  if (holders_.empty() && (!is_blank || paragraphs_.empty())) EmitNotes();
}

void BlockText::Deliver(std::string_view block, std::string_view separator) {
  if (holders_.empty()) {
    emit_(any_ ? StrCat(separator, block) : std::string(block));
    any_ = true;
    return;
  }
  // A cell, and a note, is one line.
  std::string& text = holders_.back().text;
  if (!text.empty()) text.push_back(' ');
  text += OneLine(block, block.size());
}

void BlockText::CloseCell() {
  if (holders_.empty() || !holders_.back().is_table || n_deeper_ > 0) return;
  Holder& table = holders_.back();
  if (table.has_cell) table.row.push_back('\t');
  table.row += table.text;
  table.text.clear();
  table.has_cell = true;
}

void BlockText::CloseRow() {
  if (holders_.empty() || !holders_.back().is_table || n_deeper_ > 0) return;
  Holder& table = holders_.back();
  std::string row = std::exchange(table.row, "");
  table.has_cell = false;
  while (!row.empty() && row.back() == '\t') row.pop_back();
  if (IsBlank(row)) return;
  const bool is_first = !std::exchange(table.has_row, true);
  if (holders_.size() == 1) {
    Holder held = std::move(holders_.back());
    holders_.pop_back();
    Deliver(row, is_first ? "\n\n" : "\n");
    holders_.push_back(std::move(held));
  } else {
    // A table in a cell is part of that cell's text.
    std::string& outer = holders_[holders_.size() - 2].text;
    outer += StrCat(outer.empty() ? "" : " ", OneLine(row, row.size()));
  }
  after_item_ = false;
}

void BlockText::OpenHolder(Holder holder) {
  if (holders_.size() == kMaxHolders) {
    ++n_deeper_;
  } else {
    holders_.push_back(std::move(holder));
  }
}

void BlockText::CloseHolder(bool is_table) {
  if (n_deeper_ > 0) {
    --n_deeper_;
    return;
  }
  if (holders_.empty() || holders_.back().is_table != is_table) return;
  Holder holder = std::move(holders_.back());
  holders_.pop_back();
  if (!is_table && !holder.text.empty()) AddNote(holder.label, holder.text);
  if (is_table && holders_.empty()) EmitNotes();
}

void BlockText::OpenNote(std::string_view label) {
  OpenHolder({.is_table = false, .label = std::string(label)});
}

void BlockText::CloseNote() { CloseHolder(/*is_table=*/false); }

void BlockText::AddNote(std::string_view label, std::string_view text) {
  notes_.push_back(StrCat("[", label, "] ", text));
}

void BlockText::EmitNotes() {
  bool is_first = true;
  for (const std::string& note : std::exchange(notes_, {})) {
    Deliver(note, std::exchange(is_first, false) ? "\n\n" : "\n");
    after_item_ = false;
  }
}

}  // namespace fovea::documents
