// XML parts of zip archives, as a stream of elements and text. Entities that a part declares itself
// are refused (a few lines of them stand for gigabytes); nothing outside of the part is read.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/status.h"
#include "base/zip_archive.h"

namespace fovea::documents {

struct XmlName {
  std::string_view space;  // the namespace's URI
  std::string_view local;
};

// Of one element, by their local names, whatever their namespace.
class XmlAttributes {
 public:
  explicit XmlAttributes(const char** pairs) : pairs_(pairs) {}
  // Empty when there is none.
  std::string_view Find(std::string_view local) const;

 private:
  const char** pairs_;  // name, value, …, null
};

class XmlVisitor {
 public:
  virtual ~XmlVisitor() = default;
  virtual void Start(const XmlName& name, const XmlAttributes& attributes) = 0;
  virtual void End(const XmlName& name) = 0;
  // A run of text may come in pieces, each of whole characters.
  virtual void Text(std::string_view text) = 0;
  // True: the rest is not wanted.
  virtual bool is_done() const { return false; }
};

// Reads a member of `archive` and gives what is in it to `visitor`. DataLoss: no well-formed XML,
// or a damaged member; the others as ZipArchive::Unpack.
absl::Status ReadXml(const ZipArchive& archive, const ZipMember& member, uint64_t max_size_bytes,
                     XmlVisitor* visitor);

// Reads the title (Dublin Core's dc:title) that an XML part with a document's properties holds, on
// one line; empty when the part is not there, is larger than `max_size_bytes`, cannot be read or
// has none.
std::string DublinCoreTitle(const ZipArchive& archive, std::string_view part,
                            uint64_t max_size_bytes = uint64_t{1} << 20);

}  // namespace fovea::documents
