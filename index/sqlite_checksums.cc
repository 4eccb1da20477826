#include "index/sqlite_checksums.h"

#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "base/strings.h"

namespace fovea::index {
namespace {

constexpr char kVfsName[] = "fovea-checksums";

// SQLite's file format: places in the header of a database.
constexpr int kHeaderBytes = 100;
constexpr int kPageSizeAt = 16;
constexpr int kReservedBytesAt = 20;
constexpr int kUserVersionAt = 60;
// The page around this byte is never read or written: locks are taken on it.
constexpr int64_t kLockByte = 0x40000000;

// The format of a WAL: numbers are big-endian.
constexpr int kWalHeaderBytes = 32;
constexpr int kFrameHeaderBytes = 24;
constexpr uint32_t kWalMagic = 0x377f0682;  // the lowest bit: checksums over big-endian words

uint32_t BigEndian32(const uint8_t* bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
}

bool IsPageSize(int64_t size_bytes) {
  return size_bytes >= 512 && size_bytes <= 65536 && (size_bytes & (size_bytes - 1)) == 0;
}

// The running checksum of a WAL, over pairs of words.
struct WalChecksum {
  uint32_t a = 0;
  uint32_t b = 0;
  bool operator==(const WalChecksum&) const = default;

  static WalChecksum Stored(const uint8_t* bytes) {
    return {BigEndian32(bytes), BigEndian32(bytes + 4)};
  }
  void Add(const uint8_t* bytes, size_t size_bytes, bool is_big_endian) {
    for (size_t i = 0; i + 8 <= size_bytes; i += 8) {
      a += Word(bytes + i, is_big_endian) + b;
      b += Word(bytes + i + 4, is_big_endian) + a;
    }
  }
  static uint32_t Word(const uint8_t* bytes, bool is_big_endian) {
    const uint32_t word = BigEndian32(bytes);
    return is_big_endian ? word : __builtin_bswap32(word);
  }
};

// A file of SQLite's own VFS with what is known of it here. One connection's, so one thread's at a
// time.
class CheckedFile {
 public:
  // `main`: the database of a WAL, null for a database.
  CheckedFile(sqlite3_file* real, CheckedFile* main, bool is_reader)
      : real_(real), main_(main), is_reader_(is_reader) {}

  sqlite3_file* real() const { return real_; }
  const std::string& damage() const { return damage_; }
  bool has_checksums() {
    Learn();
    return kind_ == Kind::kChecked;
  }
  void set_checkpointing(bool is_checkpointing) { is_checkpointing_ = is_checkpointing; }

  int Read(void* bytes, int amount, int64_t offset) {
    // This much of it is read only when it is recovered, with all locks of the database.
    if (main_ != nullptr && offset == 0 && amount == kWalHeaderBytes) {
      const int code = CheckWal();
      if (code != SQLITE_OK) return code;
    }
    const int code = ReadReal(bytes, amount, offset);
    if (code == SQLITE_IOERR_SHORT_READ && main_ == nullptr && IsPageSize(amount)) {
      return CheckShortRead(amount, offset);
    }
    if (code != SQLITE_OK || !IsPageSize(amount)) return code;
    const auto* page = static_cast<const uint8_t*>(bytes);
    return main_ == nullptr ? CheckPage(page, amount, offset) : CheckFrame(page, amount, offset);
  }

  int Write(const void* bytes, int amount, int64_t offset) {
    if (main_ == nullptr && IsPageSize(amount) && offset % amount == 0) {
      const auto* page = static_cast<const uint8_t*>(bytes);
      if (kind_ == Kind::kUnknown && offset == 0) kind_ = KindOf(page);
      Learn();
      if (kind_ != Kind::kPlain) {
        page_.assign(page, page + amount);
        const uint64_t checksum = PageChecksum(page, amount, offset);
        std::memcpy(page_.data() + amount - kPageChecksumBytes, &checksum, kPageChecksumBytes);
        bytes = page_.data();
      }
    }
    // A WAL that is begun anew is begun empty: a process that is ended leaves no new frame over
    // half of an old one then, which would look like a damaged one. Nobody reads the old ones:
    // SQLite begins anew when all of them are in the database and no reader uses them.
    if (main_ != nullptr && offset == 0 && amount == kWalHeaderBytes) {
      if (const int code = real_->pMethods->xTruncate(real_, 0); code != SQLITE_OK) return code;
    }
    return real_->pMethods->xWrite(real_, bytes, amount, offset);
  }

  // OK, or the code of the first page that cannot be read or is wrong.
  int CheckAllPages() {
    if (!has_checksums()) return SQLITE_OK;
    std::array<uint8_t, kHeaderBytes> header;
    if (const int code = ReadReal(header.data(), kHeaderBytes, 0); code != SQLITE_OK) return code;
    // 65,536 does not fit and is stored as 1.
    const int stored = header[kPageSizeAt] << 8 | header[kPageSizeAt + 1];
    const int page_bytes = stored == 1 ? 65536 : stored;
    if (!IsPageSize(page_bytes)) return Damage(StrCat("its page size is ", page_bytes));
    sqlite3_int64 size_bytes = 0;
    if (const int code = real_->pMethods->xFileSize(real_, &size_bytes); code != SQLITE_OK) {
      return code;
    }
    std::vector<uint8_t> page(page_bytes);
    for (int64_t offset = 0; offset < size_bytes; offset += page_bytes) {
      if (offset <= kLockByte && kLockByte < offset + page_bytes) continue;
      // Another process may be writing back a page of the WAL just now; it is done soon.
      constexpr int kMaxReads = 10;
      int code = SQLITE_OK;
      for (int i = 0; i < kMaxReads; ++i) {
        if (i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
        code = Read(page.data(), page_bytes, offset);
        if (code != SQLITE_IOERR_DATA) break;
      }
      if (code == SQLITE_IOERR_SHORT_READ) break;  // cut off meanwhile
      if (code != SQLITE_OK) return code;
    }
    return SQLITE_OK;
  }

 private:
  enum class Kind { kUnknown, kPlain, kChecked };

  static Kind KindOf(const uint8_t* header) {
    const bool is_plain = header[kReservedBytesAt] == 0 &&
                          (BigEndian32(header + kUserVersionAt) & kChecksummedVersion) == 0;
    return is_plain ? Kind::kPlain : Kind::kChecked;
  }

  void Learn() {
    if (kind_ != Kind::kUnknown) return;
    std::array<uint8_t, kHeaderBytes> header;
    if (ReadReal(header.data(), kHeaderBytes, 0) == SQLITE_OK) kind_ = KindOf(header.data());
  }

  int ReadReal(void* bytes, int amount, int64_t offset) {
    return real_->pMethods->xRead(real_, bytes, amount, offset);
  }

  int Damage(std::string what) {
    (main_ == nullptr ? damage_ : main_->damage_) = std::move(what);
    return SQLITE_IOERR_DATA;
  }

  static uint64_t PageChecksum(const uint8_t* page, int amount, int64_t offset) {
    const std::string_view content(reinterpret_cast<const char*>(page),
                                   static_cast<size_t>(amount - kPageChecksumBytes));
    return FastHash128(content, static_cast<uint64_t>(offset / amount + 1)).low;
  }

  int CheckPage(const uint8_t* page, int amount, int64_t offset) {
    Learn();
    if (kind_ != Kind::kChecked || offset % amount != 0) return SQLITE_OK;
    uint64_t stored = 0;
    std::memcpy(&stored, page + amount - kPageChecksumBytes, kPageChecksumBytes);
    if (stored == PageChecksum(page, amount, offset)) return SQLITE_OK;
    return Damage(StrCat("page ", offset / amount + 1, " (", amount, " bytes at ", offset,
                         ") does not match its checksum"));
  }

  // SQLite reads a page that is not there yet as zeros. One that is there in part was cut off.
  int CheckShortRead(int amount, int64_t offset) {
    Learn();
    sqlite3_int64 size_bytes = 0;
    if (kind_ != Kind::kChecked || offset % amount != 0 ||
        real_->pMethods->xFileSize(real_, &size_bytes) != SQLITE_OK || size_bytes <= offset ||
        size_bytes >= offset + amount) {
      return SQLITE_IOERR_SHORT_READ;
    }
    return Damage(StrCat("page ", offset / amount + 1, " (", amount, " bytes at ", offset,
                         ") is cut off: the file ends at ", size_bytes));
  }

  int WrongFrame(int64_t frame) {
    return Damage(StrCat("frame ", frame + 1, " of its WAL does not match its checksum"));
  }

  // `page` was read from the WAL. A writer may read what it has not committed yet, whose checksums
  // SQLite may be about to make.
  int CheckFrame(const uint8_t* page, int amount, int64_t offset) {
    if (!main_->is_reader_ && !main_->is_checkpointing_) return SQLITE_OK;
    const int64_t frame_bytes = kFrameHeaderBytes + amount;
    const int64_t frame_at = offset - kFrameHeaderBytes;
    if (frame_at < kWalHeaderBytes || (frame_at - kWalHeaderBytes) % frame_bytes != 0) {
      return SQLITE_OK;
    }
    std::array<uint8_t, 4> magic;
    std::array<uint8_t, 8> before;
    std::array<uint8_t, kFrameHeaderBytes> header;
    // The first frame goes on with the checksum of the WAL's header, at its end.
    const int64_t before_at = frame_at == kWalHeaderBytes
                                  ? kWalHeaderBytes - 8
                                  : frame_at - frame_bytes + kFrameHeaderBytes - 8;
    for (const int code : {ReadReal(magic.data(), magic.size(), 0),
                           ReadReal(before.data(), before.size(), before_at),
                           ReadReal(header.data(), header.size(), frame_at)}) {
      if (code != SQLITE_OK) return code;
    }
    const bool is_big_endian = (BigEndian32(magic.data()) & 1) != 0;
    WalChecksum checksum = WalChecksum::Stored(before.data());
    checksum.Add(header.data(), 8, is_big_endian);
    checksum.Add(page, static_cast<size_t>(amount), is_big_endian);
    if (checksum == WalChecksum::Stored(header.data() + 16)) return SQLITE_OK;
    return WrongFrame((frame_at - kWalHeaderBytes) / frame_bytes);
  }

  // The WAL as a recovery finds it. It ends with frames that were written before it was begun anew
  // (both salts are others), or in the middle of a frame, or with frames of a commit that was not
  // finished: those have right checksums. A frame that belongs to it and is wrong was right once.
  int CheckWal() {
    sqlite3_int64 size_bytes = 0;
    if (const int code = real_->pMethods->xFileSize(real_, &size_bytes); code != SQLITE_OK) {
      return code;
    }
    if (size_bytes < kWalHeaderBytes) return SQLITE_OK;
    std::array<uint8_t, kWalHeaderBytes> wal;
    if (const int code = ReadReal(wal.data(), kWalHeaderBytes, 0); code != SQLITE_OK) return code;
    const uint32_t magic = BigEndian32(wal.data());
    const bool is_big_endian = (magic & 1) != 0;
    const auto page_bytes = static_cast<int>(BigEndian32(wal.data() + 8));
    WalChecksum checksum;
    checksum.Add(wal.data(), kWalHeaderBytes - 8, is_big_endian);
    if ((magic & ~1u) != kWalMagic || !IsPageSize(page_bytes) ||
        checksum != WalChecksum::Stored(wal.data() + kWalHeaderBytes - 8)) {
      return Damage("the header of its WAL does not match its checksum");
    }
    std::vector<uint8_t> frame(kFrameHeaderBytes + page_bytes);
    const auto frame_bytes = static_cast<int64_t>(frame.size());
    bool has_ended = false;
    for (int64_t i = 0; kWalHeaderBytes + (i + 1) * frame_bytes <= size_bytes; ++i) {
      const int code =
          ReadReal(frame.data(), static_cast<int>(frame_bytes), kWalHeaderBytes + i * frame_bytes);
      if (code != SQLITE_OK) return code;
      const bool has_salt1 = std::memcmp(frame.data() + 8, wal.data() + 16, 4) == 0;
      const bool has_salt2 = std::memcmp(frame.data() + 12, wal.data() + 20, 4) == 0;
      if (!has_salt1 && !has_salt2) {
        has_ended = true;
        continue;
      }
      checksum.Add(frame.data(), 8, is_big_endian);
      checksum.Add(frame.data() + kFrameHeaderBytes, static_cast<size_t>(page_bytes),
                   is_big_endian);
      if (has_ended || !has_salt1 || !has_salt2 ||
          checksum != WalChecksum::Stored(frame.data() + 16)) {
        return WrongFrame(i);
      }
    }
    return SQLITE_OK;
  }

  sqlite3_file* const real_;
  CheckedFile* const main_;
  const bool is_reader_;
  bool is_checkpointing_ = false;
  Kind kind_ = Kind::kUnknown;
  std::string damage_;
  std::vector<uint8_t> page_;  // with its checksum, as it is written
};

// What SQLite holds: its part of a file first, the file of its own VFS behind it.
struct Handle {
  sqlite3_file base;
  CheckedFile* file;
};

size_t RealAt() {
  constexpr size_t kAlign = alignof(std::max_align_t);
  return (sizeof(Handle) + kAlign - 1) / kAlign * kAlign;
}

CheckedFile* FileOf(sqlite3_file* file) { return reinterpret_cast<Handle*>(file)->file; }

sqlite3_file* RealOf(sqlite3_file* file) { return FileOf(file)->real(); }

int Close(sqlite3_file* file) {
  sqlite3_file* real = RealOf(file);
  const int code = real->pMethods->xClose(real);
  delete FileOf(file);
  return code;
}

int FileControl(sqlite3_file* file, int operation, void* argument) {
  if (operation == SQLITE_FCNTL_CKPT_START) FileOf(file)->set_checkpointing(true);
  if (operation == SQLITE_FCNTL_CKPT_DONE) FileOf(file)->set_checkpointing(false);
  return RealOf(file)->pMethods->xFileControl(RealOf(file), operation, argument);
}

// Version 2: no xFetch, so that every page is read by xRead, none from a mapping.
constexpr sqlite3_io_methods kMethods = {
    .iVersion = 2,
    .xClose = Close,
    .xRead = [](sqlite3_file* f, void* bytes, int amount,
                sqlite3_int64 offset) { return FileOf(f)->Read(bytes, amount, offset); },
    .xWrite = [](sqlite3_file* f, const void* bytes, int amount,
                 sqlite3_int64 offset) { return FileOf(f)->Write(bytes, amount, offset); },
    .xTruncate = [](sqlite3_file* f,
                    sqlite3_int64 size) { return RealOf(f)->pMethods->xTruncate(RealOf(f), size); },
    .xSync = [](sqlite3_file* f,
                int flags) { return RealOf(f)->pMethods->xSync(RealOf(f), flags); },
    .xFileSize =
        [](sqlite3_file* f, sqlite3_int64* size) {
          return RealOf(f)->pMethods->xFileSize(RealOf(f), size);
        },
    .xLock = [](sqlite3_file* f, int lock) { return RealOf(f)->pMethods->xLock(RealOf(f), lock); },
    .xUnlock = [](sqlite3_file* f,
                  int lock) { return RealOf(f)->pMethods->xUnlock(RealOf(f), lock); },
    .xCheckReservedLock =
        [](sqlite3_file* f, int* result) {
          return RealOf(f)->pMethods->xCheckReservedLock(RealOf(f), result);
        },
    .xFileControl = FileControl,
    .xSectorSize = [](sqlite3_file* f) { return RealOf(f)->pMethods->xSectorSize(RealOf(f)); },
    .xDeviceCharacteristics =
        [](sqlite3_file* f) { return RealOf(f)->pMethods->xDeviceCharacteristics(RealOf(f)); },
    .xShmMap =
        [](sqlite3_file* f, int region, int size, int extend, void volatile** mapped) {
          return RealOf(f)->pMethods->xShmMap(RealOf(f), region, size, extend, mapped);
        },
    .xShmLock =
        [](sqlite3_file* f, int offset, int n, int flags) {
          return RealOf(f)->pMethods->xShmLock(RealOf(f), offset, n, flags);
        },
    .xShmBarrier = [](sqlite3_file* f) { RealOf(f)->pMethods->xShmBarrier(RealOf(f)); },
    .xShmUnmap = [](sqlite3_file* f,
                    int deletes) { return RealOf(f)->pMethods->xShmUnmap(RealOf(f), deletes); },
    .xFetch = nullptr,
    .xUnfetch = nullptr,
};

sqlite3_vfs* RealVfs(sqlite3_vfs* vfs) { return static_cast<sqlite3_vfs*>(vfs->pAppData); }

int OpenFile(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  sqlite3_vfs* real_vfs = RealVfs(vfs);
  // Journals have checksums that are asked when they are used; temporary files end with the
  // process.
  if ((flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)) == 0) {
    return real_vfs->xOpen(real_vfs, name, file, flags, out_flags);
  }
  auto* handle = reinterpret_cast<Handle*>(file);
  handle->base.pMethods = nullptr;
  auto* real = reinterpret_cast<sqlite3_file*>(reinterpret_cast<char*>(file) + RealAt());
  real->pMethods = nullptr;
  const int code = real_vfs->xOpen(real_vfs, name, real, flags, out_flags);
  if (code != SQLITE_OK) {
    if (real->pMethods != nullptr) real->pMethods->xClose(real);
    return code;
  }
  CheckedFile* main =
      (flags & SQLITE_OPEN_WAL) != 0 ? FileOf(sqlite3_database_file_object(name)) : nullptr;
  handle->file = new CheckedFile(real, main, (flags & SQLITE_OPEN_READONLY) != 0);
  handle->base.pMethods = &kMethods;
  return SQLITE_OK;
}

// Registers the VFS; SQLite holds it as long as the process lives.
int RegisterVfs() {
  sqlite3_vfs* real = sqlite3_vfs_find(nullptr);
  if (real == nullptr) return SQLITE_ERROR;
  static sqlite3_vfs vfs = {
      .iVersion = 1,
      .szOsFile = static_cast<int>(RealAt()) + real->szOsFile,
      .mxPathname = real->mxPathname,
      .pNext = nullptr,
      .zName = kVfsName,
      .pAppData = real,
      .xOpen = OpenFile,
      .xDelete = [](sqlite3_vfs* v, const char* name,
                    int sync) { return RealVfs(v)->xDelete(RealVfs(v), name, sync); },
      .xAccess = [](sqlite3_vfs* v, const char* name, int flags,
                    int* result) { return RealVfs(v)->xAccess(RealVfs(v), name, flags, result); },
      .xFullPathname =
          [](sqlite3_vfs* v, const char* name, int n, char* out) {
            return RealVfs(v)->xFullPathname(RealVfs(v), name, n, out);
          },
      .xDlOpen = [](sqlite3_vfs* v,
                    const char* name) { return RealVfs(v)->xDlOpen(RealVfs(v), name); },
      .xDlError = [](sqlite3_vfs* v, int n,
                     char* message) { RealVfs(v)->xDlError(RealVfs(v), n, message); },
      .xDlSym = [](sqlite3_vfs* v, void* library,
                   const char* name) { return RealVfs(v)->xDlSym(RealVfs(v), library, name); },
      .xDlClose = [](sqlite3_vfs* v, void* library) { RealVfs(v)->xDlClose(RealVfs(v), library); },
      .xRandomness = [](sqlite3_vfs* v, int n,
                        char* out) { return RealVfs(v)->xRandomness(RealVfs(v), n, out); },
      .xSleep = [](sqlite3_vfs* v,
                   int microseconds) { return RealVfs(v)->xSleep(RealVfs(v), microseconds); },
      .xCurrentTime = [](sqlite3_vfs* v,
                         double* time) { return RealVfs(v)->xCurrentTime(RealVfs(v), time); },
      .xGetLastError = [](sqlite3_vfs* v, int n,
                          char* out) { return RealVfs(v)->xGetLastError(RealVfs(v), n, out); },
      .xCurrentTimeInt64 = nullptr,
      .xSetSystemCall = nullptr,
      .xGetSystemCall = nullptr,
      .xNextSystemCall = nullptr,
  };
  return sqlite3_vfs_register(&vfs, /*makeDflt=*/0);
}

// Null for a connection that was opened otherwise.
CheckedFile* MainFile(sqlite3* db) {
  sqlite3_file* file = nullptr;
  if (sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK ||
      file == nullptr || file->pMethods != &kMethods) {
    return nullptr;
  }
  return FileOf(file);
}

}  // namespace

absl::StatusOr<const char*> ChecksumVfsName() {
  static const int code = RegisterVfs();
  if (code != SQLITE_OK) {
    return absl::InternalError(
        StrCat("SQLite does not take a layer for checksums: ", sqlite3_errstr(code)));
  }
  return kVfsName;
}

absl::Status ReserveChecksums(sqlite3* db) {
  CheckedFile* file = MainFile(db);
  int reserved = kPageChecksumBytes;
  const int code = sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved);
  if (code != SQLITE_OK || file == nullptr) {
    return absl::InternalError(
        StrCat("no bytes of a page can be reserved (SQLite code ", code, ")"));
  }
  sqlite3_int64 size_bytes = 0;
  if (file->real()->pMethods->xFileSize(file->real(), &size_bytes) == SQLITE_OK && size_bytes > 0 &&
      !file->has_checksums()) {
    return absl::FailedPreconditionError("it has pages without checksums");
  }
  return absl::OkStatus();
}

bool HasChecksums(sqlite3* db) {
  CheckedFile* file = MainFile(db);
  return file != nullptr && file->has_checksums();
}

absl::Status CheckPages(sqlite3* db) {
  CheckedFile* file = MainFile(db);
  if (file == nullptr) return absl::OkStatus();
  const int code = file->CheckAllPages();
  if (code == SQLITE_OK) return absl::OkStatus();
  if (code == SQLITE_IOERR_DATA) return absl::DataLossError(file->damage());
  return absl::InternalError(StrCat("cannot read a page (SQLite code ", code, ")"));
}

std::string ChecksumDamage(sqlite3* db) {
  const CheckedFile* file = MainFile(db);
  return file == nullptr ? std::string() : file->damage();
}

}  // namespace fovea::index
