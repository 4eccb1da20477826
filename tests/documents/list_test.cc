#include <sys/stat.h>
#include <unistd.h>

#include "tests/documents/document_files.h"

namespace fovea::documents {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class ListDocumentsTest : public DocumentFilesTest {};

MATCHER_P2(IsLeftOut, path, kind, "") { return arg.path == path && arg.kind == kind; }

TEST_F(ListDocumentsTest, ListsAllFilesButHiddenOnesSorted) {
  for (const char* name : {"b.txt", "a.pdf", "sub/z.JSONL", "sub/deeper/page.htm", "p.png", "none",
                           ".hidden.txt", ".git/x.txt", "sub/.h/y.md"}) {
    Write(name, "x");
  }
  const auto list = ListDocuments(folder_, /*recursive=*/true);
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_THAT(list->files,
              ElementsAre(folder_ / "a.pdf", folder_ / "b.txt", folder_ / "none", folder_ / "p.png",
                          folder_ / "sub/deeper/page.htm", folder_ / "sub/z.JSONL"));
  EXPECT_THAT(list->left_out, IsEmpty());
}

TEST_F(ListDocumentsTest, LeavesOutTheFoldersThatItsCallerDoesNotWant) {
  const auto wanted = Write("a/a.txt", "x");
  Write("b/b.txt", "x");
  const auto list = ListDocuments(
      folder_, true, [&](const std::filesystem::path& folder) { return folder.filename() == "b"; });
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_THAT(list->files, ElementsAre(wanted));
  EXPECT_THAT(list->left_out, ElementsAre(IsLeftOut(folder_ / "b", "memory of fovea")));
  EXPECT_THAT(ListDocuments(folder_ / "b", true, [](const auto&) { return true; }).status(),
              IsStatus(absl::StatusCode::kInvalidArgument, "b: a memory of fovea"));
}

TEST_F(ListDocumentsTest, FollowsLinksToFilesButNotToFolders) {
  const auto file = Write("real/a.txt", "x");
  std::filesystem::create_symlink(file, folder_ / "link.txt");
  std::filesystem::create_directory_symlink(folder_, folder_ / "real" / "loop");
  std::filesystem::create_symlink(folder_ / "gone", folder_ / "broken.txt");
  ASSERT_EQ(mkfifo((folder_ / "fifo.txt").c_str(), 0600), 0);
  const auto list = ListDocuments(folder_, true);
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_THAT(list->files, ElementsAre(folder_ / "link.txt", file));
  EXPECT_THAT(list->left_out,
              UnorderedElementsAre(IsLeftOut(folder_ / "real" / "loop", "link to a folder"),
                                   IsLeftOut(folder_ / "broken.txt", "link to nothing"),
                                   IsLeftOut(folder_ / "fifo.txt", "FIFO, socket or device")));
}

TEST_F(ListDocumentsTest, WantsRecursiveForAFolder) {
  Write("a.txt", "x");
  EXPECT_THAT(ListDocuments(folder_, false).status(),
              IsStatus(absl::StatusCode::kInvalidArgument, "pass --recursive"));
}

TEST_F(ListDocumentsTest, SaysThatAFolderHoldsNothing) {
  Write(".hidden", "x");
  EXPECT_THAT(ListDocuments(folder_, true).status(),
              IsStatus(absl::StatusCode::kNotFound, "no files in this folder"));
}

TEST_F(ListDocumentsTest, GivesAnythingElseBack) {
  EXPECT_THAT(ListDocuments(folder_ / "none.xyz", false)->files, ElementsAre(folder_ / "none.xyz"));
}

TEST_F(ListDocumentsTest, ListsAFolderThatCannotBeReadSoThatItIsReported) {
  Write("a.txt", "x");
  const auto locked = Write("locked/b.txt", "x").parent_path();
  ASSERT_EQ(chmod(locked.c_str(), 0), 0);
  const Unprivileged unprivileged;
  if (!unprivileged.ok()) GTEST_SKIP() << "this user may read every file, and not become another";
  const auto list = ListDocuments(folder_, true);
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_THAT(list->files, ElementsAre(folder_ / "a.txt", locked));
  EXPECT_THAT(OpenError(locked), IsStatus(absl::StatusCode::kPermissionDenied, "locked"));
}

}  // namespace
}  // namespace fovea::documents
