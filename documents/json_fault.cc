#include "documents/json_fault.h"

#include "base/strings.h"
#include "documents/names.h"
#include "documents/utf8.h"

namespace fovea::documents {
namespace {

constexpr size_t kMaxFaultBytes = 160;

// The end of `bytes`, which need not be UTF-8, as it can be printed.
std::string PrintableEnd(std::string_view bytes) {
  constexpr size_t kMaxBytes = 80;
  std::string printable;
  if (bytes.size() > kMaxBytes) {
    bytes.remove_prefix(bytes.size() - kMaxBytes);
    // From the beginning of a character, which has at most three more bytes.
    for (int i = 0; i < 3 && (static_cast<unsigned char>(bytes.front()) & 0xC0) == 0x80; ++i) {
      bytes.remove_prefix(1);
    }
    printable = "…";
  }
  // JSON has backslashes of its own: they stay as they are.
  for (size_t end = 0; end != bytes.npos; bytes.remove_prefix(end + 1)) {
    end = bytes.find('\\');
    printable += PrintableName(bytes.substr(0, end));
    if (end == bytes.npos) break;
    printable.push_back('\\');
  }
  return printable;
}

}  // namespace

std::string JsonFault(std::string_view what) {
  if (const size_t name = what.find("] "); what.starts_with('[') && name != what.npos) {
    what.remove_prefix(name + 2);
  }
  if (what.starts_with("parse error")) {
    const size_t place = what.find(": ");
    if (place != what.npos) what.remove_prefix(place + 2);
  }
  constexpr std::string_view kLastRead = "; last read: '";
  const size_t last_read = what.find(kLastRead);
  std::string fault = OneLine(what.substr(0, last_read), kMaxFaultBytes);
  if (fault.find(": surrogate U+D") != fault.npos) {
    fault = StrCat(fault.substr(0, fault.find(": surrogate")), ": ", kHalfOfPair);
  }
  if (last_read == what.npos) return fault;
  return StrCat(fault, kLastRead, PrintableEnd(what.substr(last_read + kLastRead.size())));
}

}  // namespace fovea::documents
