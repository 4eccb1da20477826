// Standard input is read to its end into an unnamed temporary file: a document is read more than
// once, and a pipe is not.
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "base/file.h"
#include "documents/file_kind.h"
#include "documents/input_file.h"
#include "documents/plain_text.h"
#include "documents/text_document.h"

namespace fovea::documents {
namespace {

constexpr char kSource[] = "-";
constexpr char kName[] = "standard input";

absl::StatusOr<int> OpenTemporary() {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
  if (error) {
    return absl::NotFoundError(
        StrCat(kName, ": no folder for temporary files: ", error.message(), ": set TMPDIR to one"));
  }
  std::string name = (folder / "fovea-input-XXXXXX").native();
  const int descriptor = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor < 0) return ErrnoToStatus(errno, "create a temporary file in", folder);
  ::unlink(name.c_str());
  return descriptor;
}

absl::Status CopyStandardInput(int to) {
  std::vector<char> buffer(size_t{1} << 18);
  while (true) {
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got == 0) return absl::OkStatus();
    if (got < 0 && errno == EINTR) return absl::CancelledError(StrCat(kName, ": interrupted"));
    if (got < 0) return ErrnoToStatus(errno, "read", kName);
    for (ssize_t done = 0; done < got;) {
      const ssize_t put = ::write(to, buffer.data() + done, static_cast<size_t>(got - done));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return ErrnoToStatus(errno, "copy to a temporary file (TMPDIR)", kName);
      done += put;
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<TextDocument>> ReadStandardInput() {
  ASSIGN_OR_RETURN(const int descriptor, OpenTemporary());
  absl::Cleanup close_descriptor = [descriptor] { ::close(descriptor); };
  RETURN_IF_ERROR(CopyStandardInput(descriptor));
  std::move(close_descriptor).Cancel();
  ASSIGN_OR_RETURN(std::unique_ptr<InputFile> file, InputFile::FromDescriptor(descriptor, kName));
  std::string head;
  RETURN_IF_ERROR(file->Read(kKindBytes, &head));
  RETURN_IF_ERROR(file->Rewind());
  if (const std::string_view kind = KindOf(head); !kind.empty()) {
    return absl::InvalidArgumentError(
        StrCat(kName, ": no text, but of this kind: ", kind, ": pass a file by its path"));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<TextDocument> document,
                   OpenPlainText(std::move(file), TextKind::kPlain));
  document->source = kSource;
  document->replaceable = false;
  return document;
}

}  // namespace fovea::documents
