// PDF files written by hand, for tests.
#pragma once

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace fovea::documents {

// The content of a page: the entries of its dictionary beside /Length, and its bytes.
struct PdfStream {
  PdfStream(std::string entries, std::string bytes)
      : entries(std::move(entries)), bytes(std::move(bytes)) {}
  PdfStream(std::string bytes) : bytes(std::move(bytes)) {}  // NOLINT(google-explicit-constructor)
  PdfStream(const char* bytes) : bytes(bytes) {}             // NOLINT(google-explicit-constructor)
  std::string entries;
  std::string bytes;
};

// A PDF of `pages` (each a content stream), written by hand: catalogue, page tree, one font, an
// information dictionary, and a cross-reference table with the objects' offsets.
inline std::string MakePdf(const std::vector<PdfStream>& pages, const std::string& info,
                           const std::string& trailer_extra = "",
                           const std::vector<std::string>& extra_objects = {}) {
  std::vector<std::string> objects = {
      "<< /Type /Catalog /Pages 2 0 R >>", "",
      "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
      "<< " + info + " >>"};
  std::string kids;
  for (const PdfStream& content : pages) {
    const size_t page = objects.size() + 1;
    kids += std::to_string(page) + " 0 R ";
    objects.push_back("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents " +
                      std::to_string(page + 1) + " 0 R /Resources << /Font << /F1 3 0 R >> >> >>");
    objects.push_back("<< /Length " + std::to_string(content.bytes.size()) + " " + content.entries +
                      " >>\nstream\n" + content.bytes + "\nendstream");
  }
  objects[1] =
      "<< /Type /Pages /Count " + std::to_string(pages.size()) + " /Kids [" + kids + "] >>";
  objects.insert(objects.end(), extra_objects.begin(), extra_objects.end());
  std::string pdf = "%PDF-1.4\n";
  std::string table = "0000000000 65535 f \n";
  for (size_t i = 0; i < objects.size(); ++i) {
    char entry[32];
    std::snprintf(entry, sizeof(entry), "%010zu 00000 n \n", pdf.size());
    table += entry;
    pdf += std::to_string(i + 1) + " 0 obj\n" + objects[i] + "\nendobj\n";
  }
  const size_t start = pdf.size();
  const std::string size = std::to_string(objects.size() + 1);
  return pdf + "xref\n0 " + size + "\n" + table + "trailer\n<< /Size " + size +
         " /Root 1 0 R /Info 4 0 R " + trailer_extra + " >>\nstartxref\n" + std::to_string(start) +
         "\n%%EOF\n";
}

// A content stream with these lines.
inline std::string PdfPage(const std::vector<std::string>& lines) {
  std::string content = "BT /F1 12 Tf 72 720 Td 14 TL\n";
  for (const std::string& line : lines) content += "(" + line + ") Tj T*\n";
  return content + "ET";
}

}  // namespace fovea::documents
