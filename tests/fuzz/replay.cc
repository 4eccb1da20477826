// Runs a fuzz target without a fuzzer: its corpus, then deterministic mutations of it. This is what
// compilers without libFuzzer and the tests use; a finding is repeated with the same arguments.
//
//   fuzz_gguf [--mutations N] [--seed S] [--keep FILE] PATH…      files and folders of them
//
// FILE receives each input before it is tried: after a crash it holds the one that caused it.
#include <sys/resource.h>

#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// No input is worth an allocation of more than this.
#if defined(__SANITIZE_ADDRESS__)
extern "C" const char* __asan_default_options() { return "max_allocation_size_mb=512"; }
#endif

namespace {

constexpr size_t kMaxInputBytes = size_t{1} << 20;

// Any generator would do, as long as it is the same everywhere: splitmix64 (Steele et al. 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  size_t Below(size_t n) { return n == 0 ? 0 : static_cast<size_t>(Next() % n); }

 private:
  uint64_t state_;
};

// Lengths and counts that parsers trip over.
constexpr uint64_t kNumbers[] = {
    0,          1,          2,          7,          8,          0x7F,       0x80,        0xFF,
    0x7FFF,     0xFFFF,     0x10000,    0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 1ull << 40,
    1ull << 61, 1ull << 62, 1ull << 63, ~0ull,      ~0ull - 7,  ~0ull >> 1};
constexpr const char* kWords[] = {"\"",         "\\u0000",  "null",    "-1",
                                  "1e999",      "[[[[[[[[", "{\"a\":", "<div>",
                                  "&#x10FFFF;", "\xFF",     "\xC3",    "18446744073709551616"};

void Mutate(const std::vector<std::string>& corpus, Random* random, std::string* input) {
  for (size_t n = 1 + random->Below(4); n > 0; --n) {
    const size_t at = random->Below(input->size() + 1);
    switch (random->Below(9)) {
      case 0:
        if (at < input->size()) (*input)[at] ^= static_cast<char>(1u << random->Below(8));
        break;
      case 1:
        if (at < input->size()) (*input)[at] = static_cast<char>(random->Next());
        break;
      case 2: {  // a number, little-endian
        const uint64_t number = kNumbers[random->Below(std::size(kNumbers))];
        const size_t size = size_t{1} << random->Below(4);
        char bytes[8];
        std::memcpy(bytes, &number, sizeof number);
        if (at + size <= input->size()) input->replace(at, size, bytes, size);
        break;
      }
      case 3:
        input->insert(at, kWords[random->Below(std::size(kWords))]);
        break;
      case 4:
        input->erase(at, 1 + random->Below(16));
        break;
      case 5:
        input->resize(at);
        break;
      case 6: {  // a piece of it again
        const std::string piece = input->substr(at, 1 + random->Below(64));
        std::string pieces;
        for (size_t k = 1 + random->Below(8); k > 0; --k) pieces += piece;
        input->insert(random->Below(input->size() + 1), pieces);
        break;
      }
      case 7: {  // a piece of another
        const std::string& other = corpus[random->Below(corpus.size())];
        const size_t from = random->Below(other.size() + 1);
        input->replace(at, random->Below(64), other.substr(from, 1 + random->Below(256)));
        break;
      }
      case 8: {  // a digit
        const size_t digit = input->find_first_of("0123456789", at);
        if (digit != std::string::npos) {
          (*input)[digit] = static_cast<char>('0' + random->Below(10));
        }
        break;
      }
    }
  }
  if (input->size() > kMaxInputBytes) input->resize(kMaxInputBytes);
}

void Run(const std::string& input, const std::string& keep) {
  if (!keep.empty()) std::ofstream(keep, std::ios::binary | std::ios::trunc) << input;
  // A copy of its very size, so that sanitizers see a byte too many.
  const std::vector<uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

std::string Read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t n_mutations = 0;
  uint64_t seed = 1;
  std::string keep;
  std::vector<std::filesystem::path> paths;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--mutations" && i + 1 < argc) {
      n_mutations = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--seed" && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--keep" && i + 1 < argc) {
      keep = argv[++i];
    } else if (std::filesystem::is_directory(argument)) {
      for (const auto& entry : std::filesystem::directory_iterator(argument)) {
        paths.push_back(entry.path());
      }
    } else {
      paths.emplace_back(argument);
    }
  }
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> corpus;
  for (const std::filesystem::path& path : paths) corpus.push_back(Read(path));
  if (corpus.empty() || std::all_of(corpus.begin(), corpus.end(),
                                    [](const std::string& input) { return input.empty(); })) {
    std::fprintf(stderr, "usage: %s [--mutations N] [--seed S] [--keep FILE] PATH…\n", argv[0]);
    return 2;
  }
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // Sanitizers reserve more than any limit would leave them.
  const rlimit limit = {rlim_t{4} << 30, rlim_t{4} << 30};
  setrlimit(RLIMIT_AS, &limit);
#endif
  Run("", keep);
  for (const std::string& input : corpus) Run(input, keep);
  Random random(seed);
  for (uint64_t i = 0; i < n_mutations; ++i) {
    std::string input = corpus[random.Below(corpus.size())];
    Mutate(corpus, &random, &input);
    Run(input, keep);
  }
  std::printf("%zu inputs and %" PRIu64 " mutations: nothing found\n", corpus.size(), n_mutations);
  return 0;
}
