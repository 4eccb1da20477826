// Runs the built program as a user would: arguments, environment, standard input, and what comes
// back.
#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace fovea::cli {

// Words that no other seed has.
inline std::string Words(uint32_t seed, size_t n_bytes) {
  std::mt19937 random(seed);
  std::string text;
  while (text.size() < n_bytes) {
    for (uint32_t n = 2 + random() % 7; n > 0; --n) text += static_cast<char>('a' + random() % 26);
    text += ' ';
  }
  return text += ".\n";
}

using Arguments = std::vector<std::string>;
using Environment = std::map<std::string, std::string>;

// The user without rights, where tests run as root.
constexpr unsigned kNobody = 65534;

struct ProgramResult {
  int code = -1;  // 128 + the signal when one ended it
  std::string out;
  std::string err;
  nlohmann::ordered_json json() const {
    return nlohmann::ordered_json::parse(out, nullptr, /*allow_exceptions=*/false);
  }
};

inline std::string Slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// What a program runs under.
struct Confinement {
  bool as_nobody = false;
  rlim_t max_file_bytes = RLIM_INFINITY;  // as by `ulimit -f`
  std::vector<int> closed;                // descriptors, as by `exec 1>&-`
};

// A running program that writes its results and messages into files (results to `stdout_fd`, if it
// is one).
class Program {
 public:
  Program(const Arguments& arguments, const Environment& environment, int stdin_fd,
          const std::filesystem::path& out, const std::filesystem::path& err, int stdout_fd = -1,
          const Confinement& confinement = {})
      : out_(out), err_(err) {
    std::vector<std::string> words = {FOVEA_PROGRAM};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const int out_fd = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const int err_fd = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(stdin_fd, STDIN_FILENO);
      dup2(stdout_fd >= 0 ? stdout_fd : out_fd, STDOUT_FILENO);
      dup2(err_fd, STDERR_FILENO);
      const rlimit file_bytes = {confinement.max_file_bytes, confinement.max_file_bytes};
      if (setrlimit(RLIMIT_FSIZE, &file_bytes) != 0) _exit(126);
      if (confinement.as_nobody && (setgid(kNobody) != 0 || setuid(kNobody) != 0)) _exit(126);
      for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
      for (const int descriptor : confinement.closed) close(descriptor);
      execv(FOVEA_PROGRAM, argv.data());
      _exit(127);
    }
    close(out_fd);
    close(err_fd);
  }
  void Signal(int number) const { kill(pid_, number); }
  bool IsRunning() const {
    siginfo_t info = {};
    return waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0;
  }
  // Of main memory that it holds now.
  int64_t ResidentBytes() const {
    std::ifstream statm(std::filesystem::path("/proc") / std::to_string(pid_) / "statm");
    int64_t total_pages = 0;
    int64_t resident_pages = 0;
    statm >> total_pages >> resident_pages;
    return resident_pages * sysconf(_SC_PAGESIZE);
  }
  ProgramResult Wait() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    ProgramResult result;
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    result.out = Slurp(out_);
    result.err = Slurp(err_);
    return result;
  }

 private:
  pid_t pid_ = -1;
  std::filesystem::path out_;
  std::filesystem::path err_;
};

// A folder for a test's files, in which the program also runs its home.
class ProgramTest : public ::testing::Test {
 protected:
  ProgramTest() {
    std::string name = (std::filesystem::temp_directory_path() / "fovea-cli-XXXXXX").string();
    FOVEA_CHECK(mkdtemp(name.data()) != nullptr);
    folder_ = name;
    environment_ = {
        {"FOVEA_HOME", (folder_ / "home").string()}, {"FOVEA_MODEL", ""}, {"FOVEA_MEMORY", ""}};
  }
  ~ProgramTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return (folder_ / name).string();
  }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  ProgramResult Fovea(const Arguments& arguments, const std::string& input = "") const {
    const std::string path = Write("stdin", input);
    const int stdin_fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    Program program(arguments, environment_, stdin_fd, folder_ / "stdout", folder_ / "stderr", -1,
                    confinement_);
    close(stdin_fd);
    return program.Wait();
  }

  std::filesystem::path folder_;
  Environment environment_;
  Confinement confinement_;
};

inline std::vector<std::string> Keys(const nlohmann::ordered_json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

inline std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

}  // namespace fovea::cli
