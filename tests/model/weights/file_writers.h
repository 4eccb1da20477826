// Writes small weight files for the tests of their readers, right ones and wrong ones.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace fovea::model {

template <typename T>
std::string Bytes(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

inline std::string FloatBytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// A folder that is removed with the object.
class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "fovea-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  std::filesystem::path Write(std::string_view name, std::string_view bytes) const {
    const std::filesystem::path path = path_ / name;
    std::ofstream(path, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path;
  }

 private:
  std::filesystem::path path_;
};

// GGUF version 3. Nothing is checked: what is added is written.
class GgufWriter {
 public:
  enum Type : uint32_t { kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9 };

  static std::string Text(std::string_view text) {
    return Bytes<uint64_t>(text.size()) + std::string(text);
  }
  void Value(std::string_view key, uint32_t type, std::string_view value) {
    values_ += Text(key) + Bytes(type) + std::string(value);
    ++n_values_;
  }
  void U32(std::string_view key, uint32_t value) { Value(key, kU32, Bytes(value)); }
  void F32(std::string_view key, float value) { Value(key, kF32, Bytes(value)); }
  void Bool(std::string_view key, bool value) { Value(key, kBool, Bytes(value)); }
  void String(std::string_view key, std::string_view value) { Value(key, kString, Text(value)); }
  void Strings(std::string_view key, const std::vector<std::string>& values) {
    std::string array = Bytes<uint32_t>(kString) + Bytes<uint64_t>(values.size());
    for (const std::string& value : values) array += Text(value);
    Value(key, kArray, array);
  }
  template <typename T>
  void Array(std::string_view key, uint32_t type, const std::vector<T>& values) {
    std::string array = Bytes(type) + Bytes<uint64_t>(values.size());
    for (const T& value : values) array += Bytes(value);
    Value(key, kArray, array);
  }

  // `shape` outermost first; `offset` is where the data part of the file continues.
  void Tensor(std::string_view name, const std::vector<int64_t>& shape, uint32_t type,
              std::string_view data) {
    TensorInfo(name, shape, type, data_.size());
    data_ += data;
    data_.resize((data_.size() + 31) / 32 * 32);
  }
  void TensorInfo(std::string_view name, const std::vector<int64_t>& shape, uint32_t type,
                  uint64_t offset) {
    infos_ += Text(name) + Bytes<uint32_t>(shape.size());
    for (size_t i = shape.size(); i-- > 0;) infos_ += Bytes<uint64_t>(shape[i]);
    infos_ += Bytes(type) + Bytes(offset);
    ++n_tensors_;
  }

  std::string Finish() const { return Finish(n_tensors_, n_values_); }
  std::string Finish(uint64_t n_tensors, uint64_t n_values) const {
    std::string file = "GGUF" + Bytes<uint32_t>(3) + Bytes(n_tensors) + Bytes(n_values);
    file += values_ + infos_;
    file.resize((file.size() + 31) / 32 * 32);
    return file + data_;
  }

 private:
  std::string values_;
  std::string infos_;
  std::string data_;
  uint64_t n_values_ = 0;
  uint64_t n_tensors_ = 0;
};

// The bytes of a safetensors file with this header.
inline std::string Safetensors(std::string_view header, std::string_view data) {
  return Bytes<uint64_t>(header.size()) + std::string(header) + std::string(data);
}

struct NamedTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// A right safetensors file of F32 tensors.
inline std::string SafetensorsOf(const std::vector<NamedTensor>& tensors) {
  std::string header = "{";
  std::string data;
  for (const NamedTensor& tensor : tensors) {
    if (header.size() > 1) header += ",";
    header += "\"" + tensor.name + "\":{\"dtype\":\"F32\",\"shape\":[";
    for (size_t i = 0; i < tensor.shape.size(); ++i) {
      header += (i > 0 ? "," : "") + std::to_string(tensor.shape[i]);
    }
    const size_t begin = data.size();
    data += FloatBytes(tensor.values);
    header +=
        "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
  }
  return Safetensors(header + "}", data);
}

}  // namespace fovea::model
