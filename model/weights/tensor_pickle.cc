#include "model/weights/tensor_pickle.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_format.h"
#include "model/weights/file_checks.h"

namespace fovea::model {
namespace {

enum class Kind {
  kNone,
  kBool,
  kInteger,
  kString,
  kTuple,
  kMark,
  kDictionary,         // names and tensors
  kOrderedDictionary,  // the global
  kRebuildTensor,      // the global
  kStorageType,        // a global: an element type
  kStorage,            // a record of the archive
  kTensor,
};

std::string_view KindName(Kind kind) {
  constexpr std::string_view kNames[] = {"None",           "a truth value", "a whole number",
                                         "a string",       "a tuple",       "a mark",
                                         "a dictionary",   "OrderedDict",   "_rebuild_tensor_v2",
                                         "a storage type", "a storage",     "a tensor"};
  return kNames[static_cast<size_t>(kind)];
}

// Values are kept in one list and referred to by their index, so that the memo and tuples share
// them: no depth to overflow a stack with, and as many values as opcodes at most.
using Ref = uint32_t;

struct Value {
  Kind kind = Kind::kNone;
  compute::DType dtype = compute::DType::kF32;  // kStorageType
  int64_t integer = 0;          // kInteger; kStorage, kTensor: index into the machine's tensors
  std::string_view text = {};   // kString: bytes of the pickle
  std::vector<Ref> items = {};  // kTuple
  std::vector<std::pair<std::string_view, Ref>> entries = {};  // kDictionary
};

class Machine {
 public:
  explicit Machine(std::string_view bytes) : bytes_(bytes) {}

  absl::StatusOr<std::vector<PickledTensor>> Run() {
    while (!stopped_) {
      const size_t begin = position_;
      const absl::Status status = Step();
      if (!status.ok()) return Annotate(status, StrCat("pickle, byte ", begin));
    }
    return TakeTensors();
  }

 private:
  absl::Status Step() {
    ASSIGN_OR_RETURN(const uint8_t opcode, Byte());
    switch (opcode) {
      case 0x80: {  // PROTO
        ASSIGN_OR_RETURN(const uint8_t protocol, Byte());
        if (protocol == 2) return absl::OkStatus();
        return absl::UnimplementedError(
            StrCat("protocol ", int{protocol}, ", fovea reads 2, torch.save's own"));
      }
      case 'c':
        return Global();
      case '(':
        return Push({.kind = Kind::kMark});
      case ')':
        return Push({.kind = Kind::kTuple});
      case '}':
        return Push({.kind = Kind::kDictionary});
      case 'N':
        return Push({.kind = Kind::kNone});
      case 0x88:
      case 0x89:
        return Push({.kind = Kind::kBool});
      case 'K':
        return Integer(1);
      case 'M':
        return Integer(2);
      case 'J':
        return Integer(4);
      case 0x8a:
        return LongInteger();
      case 'X':
        return Text();
      case 't': {
        ASSIGN_OR_RETURN(std::vector<Ref> items, PopToMark());
        return Push({.kind = Kind::kTuple, .items = std::move(items)});
      }
      case 0x85:
      case 0x86:
      case 0x87:
        return Tuple(opcode - 0x84);
      case 'q':
        return Remember(1);
      case 'r':
        return Remember(4);
      case 'h':
        return Recall(1);
      case 'j':
        return Recall(4);
      case 'Q':
        return Storage();
      case 'R':
        return Call();
      case 's': {
        ASSIGN_OR_RETURN(const Ref value, Pop());
        ASSIGN_OR_RETURN(const Ref key, Pop());
        return SetItems({key, value});
      }
      case 'u': {
        ASSIGN_OR_RETURN(const std::vector<Ref> items, PopToMark());
        return SetItems(items);
      }
      case 'b': {  // BUILD: a dictionary's attributes (_metadata) say nothing about tensors
        ASSIGN_OR_RETURN(const Ref state, Pop(Kind::kDictionary));
        (void)state;
        return Top(Kind::kDictionary).status();
      }
      case '.':
        stopped_ = true;
        return absl::OkStatus();
      default:
        return absl::UnimplementedError(
            absl::StrFormat("opcode 0x%02x is none that a dictionary of tensors needs", opcode));
    }
  }

  // --- bytes ---

  absl::StatusOr<std::string_view> Bytes(size_t n) {
    if (bytes_.size() - position_ < n) {
      return absl::InvalidArgumentError(
          StrCat("truncated: ", n, " more bytes wanted, there are ", bytes_.size() - position_));
    }
    position_ += n;
    return bytes_.substr(position_ - n, n);
  }
  absl::StatusOr<uint8_t> Byte() {
    ASSIGN_OR_RETURN(const std::string_view byte, Bytes(1));
    return static_cast<uint8_t>(byte[0]);
  }
  // Little-endian, unsigned.
  absl::StatusOr<uint64_t> Number(size_t n_bytes) {
    ASSIGN_OR_RETURN(const std::string_view bytes, Bytes(n_bytes));
    uint64_t number = 0;
    for (size_t i = 0; i < n_bytes; ++i) {
      number |= uint64_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
    }
    return number;
  }
  absl::StatusOr<std::string_view> Line() {
    const size_t end = bytes_.find('\n', position_);
    if (end == std::string_view::npos) {
      return absl::InvalidArgumentError("truncated: the name of a global has no end");
    }
    const std::string_view line = bytes_.substr(position_, end - position_);
    position_ = end + 1;
    return line;
  }

  // --- stack ---

  absl::Status Push(Value value) {
    values_.push_back(std::move(value));
    stack_.push_back(static_cast<Ref>(values_.size() - 1));
    return absl::OkStatus();
  }
  absl::StatusOr<Ref> Pop() {
    if (stack_.empty()) return absl::InvalidArgumentError("damaged: the stack is empty");
    const Ref top = stack_.back();
    stack_.pop_back();
    return top;
  }
  absl::StatusOr<Ref> Pop(Kind kind) {
    ASSIGN_OR_RETURN(const Ref top, Pop());
    RETURN_IF_ERROR(Want(top, kind));
    return top;
  }
  absl::StatusOr<Ref> Top(Kind kind) {
    if (stack_.empty()) return absl::InvalidArgumentError("damaged: the stack is empty");
    RETURN_IF_ERROR(Want(stack_.back(), kind));
    return stack_.back();
  }
  absl::StatusOr<std::vector<Ref>> PopToMark() {
    std::vector<Ref> items;
    while (!stack_.empty() && values_[stack_.back()].kind != Kind::kMark) {
      items.push_back(stack_.back());
      stack_.pop_back();
    }
    if (stack_.empty()) return absl::InvalidArgumentError("damaged: no mark on the stack");
    stack_.pop_back();
    std::reverse(items.begin(), items.end());
    return items;
  }
  absl::Status Want(Ref value, Kind kind) const {
    if (values_[value].kind == kind) return absl::OkStatus();
    return absl::InvalidArgumentError(
        StrCat("want ", KindName(kind), ", found ", KindName(values_[value].kind)));
  }

  // --- opcodes ---

  absl::Status Global() {
    ASSIGN_OR_RETURN(const std::string_view module, Line());
    ASSIGN_OR_RETURN(const std::string_view name, Line());
    struct Known {
      std::string_view module, name;
      Kind kind;
      compute::DType dtype;
    };
    static constexpr Known kKnown[] = {
        {"collections", "OrderedDict", Kind::kOrderedDictionary, {}},
        {"torch._utils", "_rebuild_tensor_v2", Kind::kRebuildTensor, {}},
        {"torch", "FloatStorage", Kind::kStorageType, compute::DType::kF32},
        {"torch", "HalfStorage", Kind::kStorageType, compute::DType::kF16},
        {"torch", "BFloat16Storage", Kind::kStorageType, compute::DType::kBF16},
    };
    for (const Known& known : kKnown) {
      if (known.module == module && known.name == name) {
        return Push({.kind = known.kind, .dtype = known.dtype});
      }
    }
    const std::string full = StrCat(Printable(module), ".", Printable(name));
    if (module == "torch" && name.ends_with("Storage")) {
      return absl::UnimplementedError(
          StrCat("tensors of ", full, "; fovea reads F32, F16 and BF16"));
    }
    return absl::PermissionDeniedError(StrCat(
        "it would call ", full, ", which weights have no need of: not read, and nothing was ",
        "executed. Take the weights as safetensors, from a source that you trust"));
  }

  absl::Status Integer(size_t n_bytes) {
    ASSIGN_OR_RETURN(const uint64_t number, Number(n_bytes));
    const int64_t value = n_bytes == 4 ? static_cast<int32_t>(static_cast<uint32_t>(number))
                                       : static_cast<int64_t>(number);
    return Push({.kind = Kind::kInteger, .integer = value});
  }

  absl::Status LongInteger() {
    ASSIGN_OR_RETURN(const uint8_t n_bytes, Byte());
    if (n_bytes > 8) {
      return absl::InvalidArgumentError(StrCat("a number of ", int{n_bytes}, " bytes, at most 8"));
    }
    ASSIGN_OR_RETURN(uint64_t number, Number(n_bytes));
    // Two's complement of n_bytes.
    if (n_bytes > 0 && n_bytes < 8 && (number >> (8 * n_bytes - 1)) != 0) {
      number |= ~uint64_t{0} << (8 * n_bytes);
    }
    return Push({.kind = Kind::kInteger, .integer = static_cast<int64_t>(number)});
  }

  absl::Status Text() {
    ASSIGN_OR_RETURN(const uint64_t size, Number(4));
    ASSIGN_OR_RETURN(const std::string_view text, Bytes(size));
    if (!IsUtf8(text)) return absl::InvalidArgumentError("a string that is not UTF-8");
    return Push({.kind = Kind::kString, .text = text});
  }

  absl::Status Tuple(int n) {
    std::vector<Ref> items(static_cast<size_t>(n));
    for (int i = n - 1; i >= 0; --i) {
      ASSIGN_OR_RETURN(items[static_cast<size_t>(i)], Pop());
    }
    return Push({.kind = Kind::kTuple, .items = std::move(items)});
  }

  absl::Status Remember(size_t n_bytes) {
    ASSIGN_OR_RETURN(const uint64_t key, Number(n_bytes));
    if (stack_.empty()) return absl::InvalidArgumentError("damaged: nothing to remember");
    memo_[key] = stack_.back();
    return absl::OkStatus();
  }

  absl::Status Recall(size_t n_bytes) {
    ASSIGN_OR_RETURN(const uint64_t key, Number(n_bytes));
    const auto it = memo_.find(key);
    if (it == memo_.end()) {
      return absl::InvalidArgumentError(StrCat("damaged: nothing remembered as ", key));
    }
    stack_.push_back(it->second);
    return absl::OkStatus();
  }

  // A persistent id: ("storage", type, key, location, number of values).
  absl::Status Storage() {
    ASSIGN_OR_RETURN(const Ref id, Pop(Kind::kTuple));
    const std::vector<Ref> items = values_[id].items;
    if (items.size() != 5) {
      return absl::InvalidArgumentError(StrCat("a storage of ", items.size(), " parts, want 5"));
    }
    RETURN_IF_ERROR(Want(items[0], Kind::kString));
    RETURN_IF_ERROR(Want(items[1], Kind::kStorageType));
    RETURN_IF_ERROR(Want(items[2], Kind::kString));
    RETURN_IF_ERROR(Want(items[4], Kind::kInteger));
    if (values_[items[0]].text != "storage") {
      return absl::InvalidArgumentError(
          StrCat("a persistent id '", Printable(values_[items[0]].text), "', want 'storage'"));
    }
    PickledTensor storage;
    storage.dtype = values_[items[1]].dtype;
    storage.storage = std::string(values_[items[2]].text);
    storage.storage_values = values_[items[4]].integer;
    if (storage.storage_values < 0) {
      return absl::InvalidArgumentError(StrCat("a storage of ", storage.storage_values, " values"));
    }
    return PushTensor(Kind::kStorage, std::move(storage));
  }

  absl::Status PushTensor(Kind kind, PickledTensor tensor) {
    tensors_.push_back(std::move(tensor));
    return Push({.kind = kind, .integer = static_cast<int64_t>(tensors_.size()) - 1});
  }

  // callable, arguments → result
  absl::Status Call() {
    ASSIGN_OR_RETURN(const Ref arguments, Pop(Kind::kTuple));
    ASSIGN_OR_RETURN(const Ref callable, Pop());
    const std::vector<Ref> items = values_[arguments].items;
    if (values_[callable].kind == Kind::kOrderedDictionary) {
      if (!items.empty()) return absl::UnimplementedError("an OrderedDict made with arguments");
      return Push({.kind = Kind::kDictionary});
    }
    RETURN_IF_ERROR(Want(callable, Kind::kRebuildTensor));
    // storage, offset, shape, strides, requires_grad, hooks [, metadata]
    if (items.size() < 6 || items.size() > 7) {
      return absl::InvalidArgumentError(
          StrCat("_rebuild_tensor_v2 of ", items.size(), " arguments, want 6 or 7"));
    }
    RETURN_IF_ERROR(Want(items[0], Kind::kStorage));
    RETURN_IF_ERROR(Want(items[1], Kind::kInteger));
    PickledTensor tensor = tensors_[static_cast<size_t>(values_[items[0]].integer)];
    tensor.offset_values = values_[items[1]].integer;
    ASSIGN_OR_RETURN(tensor.shape, Integers(items[2]));
    ASSIGN_OR_RETURN(tensor.strides, Integers(items[3]));
    if (tensor.offset_values < 0 || tensor.shape.size() != tensor.strides.size() ||
        tensor.shape.size() > 8) {
      return absl::InvalidArgumentError(StrCat("a tensor at ", tensor.offset_values, " of shape ",
                                               ShapeString(tensor.shape), " with strides ",
                                               ShapeString(tensor.strides)));
    }
    return PushTensor(Kind::kTensor, std::move(tensor));
  }

  // Not negative.
  absl::StatusOr<std::vector<int64_t>> Integers(Ref tuple) const {
    RETURN_IF_ERROR(Want(tuple, Kind::kTuple));
    std::vector<int64_t> integers;
    for (const Ref item : values_[tuple].items) {
      RETURN_IF_ERROR(Want(item, Kind::kInteger));
      if (values_[item].integer < 0) {
        return absl::InvalidArgumentError(StrCat("a size of ", values_[item].integer));
      }
      integers.push_back(values_[item].integer);
    }
    return integers;
  }

  absl::Status SetItems(const std::vector<Ref>& items) {
    ASSIGN_OR_RETURN(const Ref dictionary, Top(Kind::kDictionary));
    if (items.size() % 2 != 0) return absl::InvalidArgumentError("a key without a value");
    for (size_t i = 0; i < items.size(); i += 2) {
      RETURN_IF_ERROR(Want(items[i], Kind::kString));
      values_[dictionary].entries.emplace_back(values_[items[i]].text, items[i + 1]);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<PickledTensor>> TakeTensors() {
    if (stack_.size() != 1 || values_[stack_[0]].kind != Kind::kDictionary) {
      return absl::InvalidArgumentError("pickle: want a dictionary of tensors and nothing else");
    }
    std::vector<PickledTensor> tensors;
    std::set<std::string_view> names;
    for (const auto& [name, ref] : values_[stack_[0]].entries) {
      if (!names.insert(name).second) {
        return absl::InvalidArgumentError(
            StrCat("pickle: tensor ", Printable(name), " is there twice"));
      }
      if (values_[ref].kind != Kind::kTensor) {
        return absl::UnimplementedError(StrCat("pickle: ", Printable(name), " is ",
                                               KindName(values_[ref].kind),
                                               ", want a dictionary of tensors alone"));
      }
      tensors.push_back(tensors_[static_cast<size_t>(values_[ref].integer)]);
      tensors.back().name = std::string(name);
    }
    return tensors;
  }

  std::string_view bytes_;
  size_t position_ = 0;
  bool stopped_ = false;
  std::vector<Value> values_;
  std::vector<PickledTensor> tensors_;  // storages, and tensors without their names
  std::vector<Ref> stack_;
  std::map<uint64_t, Ref> memo_;
};

}  // namespace

absl::StatusOr<std::vector<PickledTensor>> ReadTensorPickle(std::string_view bytes) {
  return Machine(bytes).Run();
}

}  // namespace fovea::model
