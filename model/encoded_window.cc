#include "model/encoded_window.h"

#include <utility>

namespace fovea::model {

EncodedWindow ToEncodedWindow(MemoryEntries entries, EntryType type) {
  EncodedWindow window;
  window.n_tokens = entries.n_tokens;
  const auto convert = [type](std::vector<std::vector<float>>& from, std::vector<EntryVector>* to) {
    for (std::vector<float>& layer : from) {
      if (type == EntryType::kFloat32) {
        to->emplace_back(std::move(layer));
      } else {
        to->emplace_back(type, layer.size()).Set(0, layer.data(), layer.size());
      }
    }
  };
  convert(entries.keys, &window.keys);
  convert(entries.values, &window.values);
  return window;
}

}  // namespace fovea::model
