// The text of a word processor's document, put together from its paragraphs, lists, tables and
// notes as they come.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace fovea::documents {

// Paragraphs and tables are set apart by an empty line, items of a list and rows of a table by a
// line's end, cells by a tab; a note follows the paragraph (or table) that refers to it. Paragraphs
// in a paragraph (text boxes) come in front of it. Calls that do not fit are passed over. Not
// thread-safe.
class BlockText {
 public:
  // `emit` gets the text piece by piece.
  explicit BlockText(std::function<void(std::string_view)> emit) : emit_(std::move(emit)) {}

  void OpenParagraph() { paragraphs_.emplace_back(); }
  void CloseParagraph(bool is_list_item);
  // Forgets what the paragraph that is open has so far.
  void ClearParagraph() {
    if (in_paragraph()) paragraphs_.back().clear();
  }
  // To the paragraph that is open.
  bool in_paragraph() const { return !paragraphs_.empty(); }
  void Append(std::string_view text);
  // The same with runs of white space as one space, none at the start of a line.
  void AppendCollapsed(std::string_view text);
  std::string_view paragraph() const {
    return in_paragraph() ? std::string_view(paragraphs_.back()) : std::string_view();
  }

  // Tables and notes nest as deeply as a reader could follow; what lies deeper becomes part of the
  // cell, or note, around it.
  void OpenTable() { OpenHolder({.is_table = true}); }
  void CloseCell();
  void CloseRow();
  void CloseTable() { CloseHolder(/*is_table=*/true); }

  // What comes until CloseNote is a note; `label` names it there and in the text.
  void OpenNote(std::string_view label);
  void CloseNote();
  void AddNote(std::string_view label, std::string_view text);

 private:
  // What blocks go into in place of the text.
  struct Holder {
    bool is_table = false;
    std::string label = {};  // of the note
    std::string text = {};   // of the cell, or the note
    std::string row = {};    // the cells before
    bool has_cell = false;
    bool has_row = false;
  };

  void Deliver(std::string_view block, std::string_view separator);
  void EmitNotes();
  void OpenHolder(Holder holder);
  void CloseHolder(bool is_table);

  // A text moves from each holder into the next: their number is a factor of the time.
  static constexpr size_t kMaxHolders = 64;

  const std::function<void(std::string_view)> emit_;
  std::vector<std::string> paragraphs_;  // open ones
  std::vector<Holder> holders_;
  size_t n_deeper_ = 0;  // tables and notes in the last holder that have none of their own
  std::vector<std::string> notes_;  // to be emitted
  bool any_ = false;
  bool after_item_ = false;
};

}  // namespace fovea::documents
