// Which styles of a word processor's document hide the text that has them. A style says so itself,
// or one that it is based on does.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace fovea::documents {

class HidingStyles {
 public:
  struct Style {
    std::string parent = {};         // of the same family; may be empty
    std::optional<bool> hides = {};  // nullopt: as its parent
  };

  // The first style of a name stays.
  void Add(std::string_view family, std::string_view name, Style style) {
    styles_.try_emplace({std::string(family), std::string(name)}, std::move(style));
  }

  // nullopt where neither the style nor one before it says anything. A chain that is longer than
  // any program makes (or has no end) says nothing either.
  std::optional<bool> Hides(std::string_view family, std::string_view name) const {
    constexpr int kMaxParents = 64;
    std::pair<std::string, std::string> key(family, name);
    for (int i = 0; i < kMaxParents && !styles_.empty(); ++i) {
      const auto style = styles_.find(key);
      if (style == styles_.end()) return std::nullopt;
      if (style->second.hides.has_value()) return style->second.hides;
      key.second = style->second.parent;
    }
    return std::nullopt;
  }

 private:
  std::map<std::pair<std::string, std::string>, Style> styles_;  // by family and name
};

}  // namespace fovea::documents
