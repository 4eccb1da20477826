#include "model/tokenizer/character_map.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace fovea::model {
namespace {

// What SentencePiece looks up at one position; it writes more than it has room for where there are
// more matches.
constexpr int kMaxMatches = 32;
// Those of real models have about 200 KiB. The check takes 256 steps for each unit.
constexpr size_t kMaxTrieBytes = size_t{16} << 20;

uint32_t ReadU32(const char* bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

absl::Status Bad(std::string_view what) {
  return absl::InvalidArgumentError(
      StrCat("tokenizer.model: the character map is damaged: ", what));
}

// A unit of the double array: bits 0 to 7 the label, 8 whether a value ends here, 9 to 30 the
// distance to the units of the next bytes; a value has bit 31 and the rest of it.
class Trie {
 public:
  Trie(std::string_view bytes, std::string_view replacements)
      : bytes_(bytes), replacements_(replacements), matches_(n_units(), kNew) {}

  // Depth first, with a stack of its own. Nodes are where the units of the next bytes begin;
  // several bytes may lead to the same one, but none back to where it came from.
  absl::Status Check() {
    std::vector<Visit> path;
    RETURN_IF_ERROR(Enter(Offset(Unit(0)), &path));
    while (!path.empty()) {
      Visit& visit = path.back();
      if (visit.next_byte == 256) {
        matches_[visit.node] = visit.most;
        const int8_t most = visit.most;
        path.pop_back();
        if (path.empty()) break;
        RETURN_IF_ERROR(Merge(most, &path.back()));
        continue;
      }
      const uint32_t byte = visit.next_byte++;
      const uint32_t at = visit.node ^ byte;
      const uint32_t unit = Unit(at);
      if ((unit & 0x800000FF) != byte) continue;  // no such byte follows
      const uint32_t node = at ^ Offset(unit);
      visit.ends_here = (unit >> 8 & 1) != 0;
      if (node >= n_units()) return Bad("its trie points behind its end");
      if (visit.ends_here) {
        const uint32_t value = Unit(node) & 0x7FFFFFFF;
        if (value >= replacements_.size()) return Bad("a replacement lies behind its end");
      }
      // A unit that is not used may lead from a node to itself, by a NUL: no match comes of it.
      if (node == visit.node && !visit.ends_here) continue;
      if (matches_[node] == kNew) {
        RETURN_IF_ERROR(Enter(node, &path));
      } else if (matches_[node] == kOpen) {
        return Bad("its trie goes round in circles");
      } else {
        RETURN_IF_ERROR(Merge(matches_[node], &visit));
      }
    }
    return absl::OkStatus();
  }

 private:
  static constexpr int8_t kNew = -1;
  static constexpr int8_t kOpen = -2;  // on the path
  struct Visit {
    uint32_t node = 0;
    uint32_t next_byte = 0;
    bool ends_here = false;  // behind the byte before next_byte
    int8_t most = 0;         // matches on the longest way from here, as far as known
  };

  size_t n_units() const { return bytes_.size() / 4; }
  uint32_t Unit(uint32_t at) const { return ReadU32(bytes_.data() + size_t{4} * at); }
  static uint32_t Offset(uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); }

  absl::Status Enter(uint32_t node, std::vector<Visit>* path) {
    if ((node | 0xFF) >= n_units()) return Bad("its trie points behind its end");
    matches_[node] = kOpen;
    path->push_back({.node = node});
    return absl::OkStatus();
  }
  // What follows the byte that `visit` looked at has at most `most` matches.
  static absl::Status Merge(int most, Visit* visit) {
    most += visit->ends_here ? 1 : 0;
    if (most > kMaxMatches)
      return Bad(StrCat("more than ", kMaxMatches, " replacements at a time"));
    visit->most = std::max(visit->most, static_cast<int8_t>(most));
    return absl::OkStatus();
  }

  const std::string_view bytes_;
  const std::string_view replacements_;
  std::vector<int8_t> matches_;  // by node, once it was left
};

}  // namespace

absl::Status CheckCharacterMap(std::string_view map) {
  if (map.empty()) return absl::OkStatus();  // none
  if (map.size() < 4) return Bad(StrCat(map.size(), " bytes"));
  const size_t trie_bytes = ReadU32(map.data());
  map.remove_prefix(4);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes >= map.size() ||
      trie_bytes > kMaxTrieBytes) {
    return Bad(StrCat("a trie of ", trie_bytes, " bytes in ", map.size(),
                      ", want a multiple of 4, ", "fewer than there are, and at most ",
                      kMaxTrieBytes));
  }
  const std::string_view replacements = map.substr(trie_bytes);
  // They are read as C strings.
  if (replacements.back() != '\0') return Bad("nothing ends the last replacement");
  return Trie(map.substr(0, trie_bytes), replacements).Check();
}

}  // namespace fovea::model
