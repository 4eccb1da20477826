// Recognising the format of a conversation from a model's Jinja template.
#include "fuzz_input.h"
#include "model/tokenizer/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fovea::model;
  const std::string_view text = fovea::fuzz::AsView(data, size);
  const ChatFormat format = RecognizeChatFormat(text);
  const auto named = ParseChatFormat(ChatFormatName(format));
  fovea::fuzz::Require(named.ok() && *named == format, "every format has a name");
  fovea::fuzz::CheckMessage(ParseChatFormat(text.substr(0, 64)).status());
  return 0;
}
