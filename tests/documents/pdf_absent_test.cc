#include "tests/documents/document_files.h"

namespace fovea::documents {
namespace {

using PdfAbsentTest = DocumentFilesTest;

TEST_F(PdfAbsentTest, SaysThatThisBuildReadsNoPdf) {
  EXPECT_THAT(
      OpenError(Write("a.pdf", "%PDF-1.4")),
      IsStatus(absl::StatusCode::kUnimplemented, "a.pdf: this fovea was built without PDF"));
}

}  // namespace
}  // namespace fovea::documents
