// Numbers in addresses.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>

namespace fovea::serve {

// `otherwise` for an empty text; unset for what is no number.
inline std::optional<uint64_t> ToNumber(const std::string& text, uint64_t otherwise) {
  if (text.empty()) return otherwise;
  uint64_t number = 0;
  const char* const end_of_text = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), end_of_text, number);
  return error == std::errc() && end == end_of_text ? std::optional(number) : std::nullopt;
}

}  // namespace fovea::serve
