#include "model/weights/torch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/weights/tensor_pickle.h"
#include "torch_writer.h"

namespace fovea::model {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

const std::string kSix = FloatBytes({1, 2, 3, 4, 5, 6});

std::string FileOf(const std::vector<TorchTensor>& tensors) {
  return MakeZip(
      {{"m/data.pkl", TorchPickleOf(tensors)}, {"m/data/0", kSix}, {"m/version", "3\n"}});
}

class TorchFileTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<TorchFile>> Open(std::string_view bytes) {
    return TorchFile::Open(folder_.Write("x.bin", bytes));
  }
  void ExpectRefused(std::string_view bytes, StatusCode code, const std::string& message) {
    const auto file = Open(bytes);
    ASSERT_FALSE(file.ok());
    EXPECT_EQ(file.status().code(), code) << file.status();
    EXPECT_THAT(file.status().ToString(), HasSubstr(message));
    EXPECT_THAT(file.status().ToString(), HasSubstr("x.bin"));
  }
  TempFolder folder_;
};

TEST_F(TorchFileTest, ReadsNamesShapesAndBytes) {
  const auto file = Open(FileOf({{"w", {2, 2}, {2, 1}, "0", 6, 1}, {"b", {3}, {1}, "0", 6, 3}}));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), 2u);
  const StoredTensor& b = (*file)->tensors()[0];
  const StoredTensor& w = (*file)->tensors()[1];
  EXPECT_EQ(b.name, "b");
  EXPECT_THAT(w.shape, ElementsAre(2, 2));
  EXPECT_EQ(w.size_bytes, 16u);
  EXPECT_EQ(std::memcmp(w.data, FloatBytes({2, 3, 4, 5}).data(), 16), 0);
  EXPECT_EQ(std::memcmp(b.data, FloatBytes({4, 5, 6}).data(), 12), 0);
  EXPECT_TRUE((*file)->Contains("w"));
  EXPECT_FALSE((*file)->Contains("v"));
}

TEST_F(TorchFileTest, ReadsHalfAndBrainFloats) {
  const auto file = Open(FileOf({{"h", {12}, {1}, "0", 12, 0, "HalfStorage"},
                                 {"b", {12}, {1}, "0", 12, 0, "BFloat16Storage"}}));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->tensors()[0].dtype, compute::DType::kBF16);
  EXPECT_EQ((*file)->tensors()[1].dtype, compute::DType::kF16);
}

TEST_F(TorchFileTest, NeverCallsWhatAPickleNames) {
  const std::string marker = (folder_ / "executed").string();
  for (const auto& [module, name] : {std::pair<std::string, std::string>{"os", "system"},
                                     {"posix", "system"},
                                     {"builtins", "eval"},
                                     {"torch._utils", "_rebuild_parameter"},
                                     {"torch", "load"},
                                     {"collections", "OrderedDict "}}) {
    const std::string pickle =
        "\x80\x02" + PickledGlobal(module, name) + "(" + PickledText("touch " + marker) + "tR.";
    ExpectRefused(MakeZip({{"m/data.pkl", pickle}}), StatusCode::kPermissionDenied,
                  module + "." + name);
  }
  EXPECT_FALSE(std::filesystem::exists(marker));
}

TEST_F(TorchFileTest, SaysWhatElseItDoesNotRead) {
  ExpectRefused(FileOf({{"w", {6}, {1}, "0", 6, 0, "DoubleStorage"}}), StatusCode::kUnimplemented,
                "torch.DoubleStorage");
  ExpectRefused(FileOf({{"w", {2, 3}, {1, 2}, "0", 6}}), StatusCode::kUnimplemented,
                "not contiguous");
  ExpectRefused(std::string("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15),
                StatusCode::kUnimplemented, "before 1.6");
  std::string tar(512, '\0');
  tar.replace(257, 5, "ustar");
  ExpectRefused(tar, StatusCode::kUnimplemented, "tar archive");
  ExpectRefused("GGUF", StatusCode::kInvalidArgument, "no PyTorch file");
  ExpectRefused(MakeZip({{"m/data.pkl", "\x80\x04N."}}), StatusCode::kUnimplemented, "protocol 4");
  ExpectRefused(MakeZip({{"m/data.pkl", "\x80\x02N."}}), StatusCode::kInvalidArgument,
                "want a dictionary");
  ExpectRefused(MakeZip({{"m/data.pkl", TorchPickleOf({})}, {"m/byteorder", "big"}}),
                StatusCode::kUnimplemented, "byte order 'big'");
}

TEST_F(TorchFileTest, RefusesZipBombsAndOtherArchives) {
  const std::string pickle = TorchPickleOf({});
  ExpectRefused(MakeZip({{"m/data.pkl", pickle, kZipDeflated}}), StatusCode::kUnimplemented,
                "compressed");
  ExpectRefused(MakeZip({{"m/data.pkl", pickle, 0, /*flags=*/1}}), StatusCode::kUnimplemented,
                "encrypted");
  ExpectRefused(MakeZip({{"m/other", ""}}), StatusCode::kInvalidArgument, "data.pkl");
  ExpectRefused(MakeZip({{"a/data.pkl", pickle}, {"b/data.pkl", pickle}}),
                StatusCode::kInvalidArgument, "two members");
  ExpectRefused(MakeZip({{"m/data.pkl", pickle}, {"m/data.pkl", pickle}}),
                StatusCode::kInvalidArgument, "twice");
  ExpectRefused(MakeZip({{"m/data.pkl", std::string(5 << 20, 'N')}}), StatusCode::kInvalidArgument,
                "the limit is");
}

TEST_F(TorchFileTest, RefusesRecordsThatContradictThePickle) {
  ExpectRefused(FileOf({{"w", {6}, {1}, "1", 6}}), StatusCode::kInvalidArgument,
                "data/1 is missing");
  ExpectRefused(FileOf({{"w", {6}, {1}, "0", 7}}), StatusCode::kInvalidArgument,
                "its record has 24 bytes");
  ExpectRefused(FileOf({{"w", {7}, {1}, "0", 6}}), StatusCode::kInvalidArgument,
                "7 values at 0, its storage has 6");
  ExpectRefused(FileOf({{"w", {3}, {1}, "0", 6, 4}}), StatusCode::kInvalidArgument,
                "3 values at 4");
  ExpectRefused(FileOf({{"w", {3}, {1}, "0", 6, 2147483647}}), StatusCode::kInvalidArgument,
                "3 values at 2147483647");
  ExpectRefused(FileOf({{"w", {-1}, {1}, "0", 6}}), StatusCode::kInvalidArgument, "a size of -1");
  ExpectRefused(FileOf({{"w", {2147483647, 2147483647, 8}, {1, 1, 1}, "0", 6}}),
                StatusCode::kUnimplemented, "not contiguous");
  ExpectRefused(FileOf({{"w", {6}, {1}, "0", 6}, {"w", {6}, {1}, "0", 6}}),
                StatusCode::kInvalidArgument, "w is there twice");
}

TEST_F(TorchFileTest, RefusesAbsurdSizes) {
  constexpr int64_t kHuge = int64_t{1} << 62;
  // As many bytes as 64 bits count, and a product that wraps around to the record's 24.
  ExpectRefused(FileOf({{"w", {6}, {1}, "0", kHuge + 6}}), StatusCode::kInvalidArgument,
                "its record has 24 bytes");
  ExpectRefused(FileOf({{"w", {kHuge}, {1}, "0", 6}}), StatusCode::kInvalidArgument, "w: ");
  ExpectRefused(
      FileOf({{"w", {int64_t{1} << 32, int64_t{1} << 32}, {int64_t{1} << 32, 1}, "0", 6}}),
      StatusCode::kUnimplemented, "not contiguous");
  ExpectRefused(FileOf({{"w", {3}, {1}, "0", 6, INT64_MAX}}), StatusCode::kInvalidArgument,
                "3 values at 9223372036854775807");
  ExpectRefused(FileOf({{"w", std::vector<int64_t>(9, 1), std::vector<int64_t>(9, 1), "0", 6}}),
                StatusCode::kInvalidArgument, "of shape [1,1,1,1,1,1,1,1,1]");
  // Strings and members longer than the file.
  const std::string text = "\x80\x02}X" + Bytes<uint32_t>(0xffffffff) + "w.";
  ExpectRefused(MakeZip({{"m/data.pkl", text}}), StatusCode::kInvalidArgument,
                "4294967295 more bytes wanted");
  const std::string pickle = TorchPickleOf({{"w", {6}, {1}, "0", 6}});
  for (const uint64_t claim : {uint64_t{1} << 40, ~uint64_t{0}, ~uint64_t{0} - 100}) {
    const auto file =
        Open(MakeZip({{"m/data.pkl", pickle}, {"m/data/0", kSix, 0, 0, /*claimed_bytes=*/claim}}));
    EXPECT_EQ(file.status().code(), StatusCode::kInvalidArgument) << file.status();
  }
  // The claim is read: the right one is accepted.
  EXPECT_TRUE(Open(MakeZip({{"m/data.pkl", pickle}, {"m/data/0", kSix, 0, 0, 24}})).ok());
}

// Two members may not share bytes: the same bytes would be read as both.
TEST_F(TorchFileTest, RefusesOverlappingMembers) {
  std::string archive = FileOf({{"w", {6}, {1}, "0", 6}});
  const size_t directory = archive.find("PK\x01\x02");
  const size_t second = archive.find("PK\x01\x02", directory + 4);
  // The second member's local header becomes the first's.
  archive.replace(second + 42, 4, Bytes<uint32_t>(0));
  ExpectRefused(archive, StatusCode::kInvalidArgument, "overlap");
}

TEST_F(TorchFileTest, RefusesFilesTruncatedAnywhere) {
  const std::string bytes = FileOf({{"w", {2, 2}, {2, 1}, "0", 6, 1}});
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(Open(std::string_view(bytes).substr(0, size)).ok()) << size;
  }
}

TEST_F(TorchFileTest, RefusesPicklesTruncatedAnywhere) {
  const std::string pickle = TorchPickleOf({{"w", {2, 2}, {2, 1}, "0", 6, 1}});
  ASSERT_TRUE(ReadTensorPickle(pickle).ok());
  for (size_t size = 0; size < pickle.size(); ++size) {
    const auto tensors = ReadTensorPickle(std::string_view(pickle).substr(0, size));
    EXPECT_EQ(tensors.status().code(), StatusCode::kInvalidArgument) << size;
  }
}

TEST_F(TorchFileTest, SurvivesAnyFlippedByte) {
  const std::string bytes = FileOf({{"w", {2, 2}, {2, 1}, "0", 6, 1}, {"b", {3}, {1}, "0", 6, 3}});
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int flip : {0x01, 0x04, 0x40, 0x80}) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ flip);
      const auto file = Open(damaged);
      if (!file.ok()) continue;
      // What is accepted lies inside the file.
      for (const StoredTensor& tensor : (*file)->tensors()) {
        int sum = 0;
        for (size_t b = 0; b < tensor.size_bytes; ++b) sum += static_cast<int>(tensor.data[b]);
        EXPECT_GE(sum, 0);
      }
    }
  }
}

}  // namespace
}  // namespace fovea::model
