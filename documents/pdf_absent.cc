// In place of pdf.cc in a build without poppler (-DFOVEA_PDF=OFF).
#include "documents/pdf.h"

namespace fovea::documents {

absl::StatusOr<std::unique_ptr<TextDocument>> OpenPdf(const std::filesystem::path&,
                                                      std::unique_ptr<InputFile> file,
                                                      const ReadLimits&) {
  return absl::UnimplementedError(
      StrCat(file->name(),
             ": this fovea was built without PDF: convert the file to text, for "
             "example `pdftotext FILE.pdf`, or build with -DFOVEA_PDF=ON"));
}

}  // namespace fovea::documents
