#include "memory/ingest/windowing.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>

namespace fovea::memory {
namespace {

// A text of words, one token each, with the space before it; ids by word.
struct Text {
  std::string text;
  std::vector<int32_t> ids;
  std::vector<uint32_t> ends;

  void Add(const std::string& token, int32_t id) {
    text += token;
    ids.push_back(id);
    ends.push_back(static_cast<uint32_t>(text.size()));
  }
  TokenSpan span() const { return {ids, ends, 0, text}; }
};

Text RandomText(int n_tokens, uint32_t seed) {
  std::mt19937 random(seed);
  Text text;
  for (int i = 0; i < n_tokens; ++i) {
    const int word = static_cast<int>(random() % 900);
    std::string token = " w" + std::to_string(word);
    if (random() % 12 == 0) token += ".";
    if (random() % 60 == 0) token += "\n\n";
    text.Add(token, word);
  }
  return text;
}

std::vector<std::vector<int32_t>> CutAll(const Text& text, int64_t window) {
  std::vector<std::vector<int32_t>> windows;
  Text left = text;
  while (!left.ids.empty()) {
    const bool is_last = static_cast<int64_t>(left.ids.size()) <= window;
    const int64_t n = CutWindow(left.span(), window, is_last);
    windows.emplace_back(left.ids.begin(), left.ids.begin() + n);
    Text rest;
    for (size_t t = n; t < left.ids.size(); ++t) {
      rest.Add(left.text.substr(left.ends[t - 1], left.ends[t] - left.ends[t - 1]), left.ids[t]);
    }
    left = std::move(rest);
  }
  return windows;
}

TEST(CutWindowTest, WindowsCoverTheTextAndKeepTheirBounds) {
  const Text text = RandomText(20000, 1);
  const auto windows = CutAll(text, 256);
  std::vector<int32_t> joined;
  for (size_t w = 0; w < windows.size(); ++w) {
    EXPECT_LE(windows[w].size(), 256u);
    if (w + 1 < windows.size()) {
      EXPECT_GE(windows[w].size(), 192u);
    }
    joined.insert(joined.end(), windows[w].begin(), windows[w].end());
  }
  EXPECT_EQ(joined, text.ids);
}

TEST(CutWindowTest, ShortTextIsOneWindow) {
  const Text text = RandomText(200, 2);
  EXPECT_EQ(CutWindow(text.span(), 256, true), 200);
}

TEST(CutWindowTest, WindowsFallIntoStepAgainAfterAnEdit) {
  const Text text = RandomText(40000, 3);
  Text edited;
  for (size_t t = 0; t < text.ids.size(); ++t) {
    const uint32_t begin = t == 0 ? 0 : text.ends[t - 1];
    if (t == 5000) {
      for (int i = 0; i < 137; ++i) edited.Add(" new", 901);
    }
    edited.Add(text.text.substr(begin, text.ends[t] - begin), text.ids[t]);
  }
  const auto before = CutAll(text, 256);
  const auto after = CutAll(edited, 256);
  const std::set<std::vector<int32_t>> known(before.begin(), before.end());
  size_t changed = 0;
  for (const auto& window : after) changed += known.contains(window) ? 0 : 1;
  EXPECT_LE(changed, 16u) << "of " << after.size() << " windows";
}

TEST(CutWindowTest, NeverCutsACharacter) {
  // Three byte tokens make one character, and the tokenizer gives all of them the character's end.
  Text text;
  for (int i = 0; i < 400; ++i) {
    text.text += "\xe2\x82\xac";
    for (int byte = 0; byte < 3; ++byte) {
      text.ids.push_back(byte);
      text.ends.push_back(static_cast<uint32_t>(text.text.size()));
    }
  }
  EXPECT_EQ(CutWindow(text.span(), 256, false) % 3, 0);
  // The same with ends at every byte.
  for (size_t t = 0; t < text.ends.size(); ++t) text.ends[t] = static_cast<uint32_t>(t + 1);
  EXPECT_EQ(CutWindow(text.span(), 256, false) % 3, 0);
}

TEST(CutPassagesTest, PassagesPartitionTheWindow) {
  const Text text = RandomText(1000, 4);
  const auto begins = CutPassages(text.span());
  ASSERT_GE(begins.size(), 3u);
  EXPECT_EQ(begins[0], 0u);
  for (size_t p = 0; p < begins.size(); ++p) {
    const uint32_t end = p + 1 < begins.size() ? begins[p + 1] : 1000;
    EXPECT_GE(end - begins[p], 64u);
    EXPECT_LE(end - begins[p], 384u);
  }
}

TEST(CutPassagesTest, PrefersTheEndOfAParagraph) {
  Text text;
  for (int i = 0; i < 600; ++i) text.Add(i == 199 ? " end.\n\n" : " word", i);
  const auto begins = CutPassages(text.span());
  ASSERT_GE(begins.size(), 2u);
  EXPECT_EQ(begins[1], 200u);
}

TEST(CutPassagesTest, ShortWindowIsOnePassage) {
  EXPECT_EQ(CutPassages(RandomText(384, 5).span()).size(), 1u);
}

}  // namespace
}  // namespace fovea::memory
