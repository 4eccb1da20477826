# Everything fovea takes from the distribution, found once. Each folder links what it uses, so a
# library appears in the CMakeLists.txt of one folder, and of no other.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(OpenSSL REQUIRED)          # SHA-256 of documents and downloads
find_package(dnnl CONFIG REQUIRED)      # matrix products of batches
find_package(RocksDB CONFIG REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
find_package(SQLite3 REQUIRED)          # FTS5: the text index
find_package(ZLIB REQUIRED)             # members of zip archives
# FAISS's package does not find its own dependencies; one with a part for GPUs needs CUDA's.
find_package(CUDAToolkit QUIET)
find_package(OpenMP REQUIRED)
find_package(BLAS REQUIRED)
find_package(LAPACK REQUIRED)
find_package(faiss CONFIG REQUIRED)
pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(SENTENCEPIECE REQUIRED IMPORTED_TARGET sentencepiece)
pkg_check_modules(GUMBO REQUIRED IMPORTED_TARGET gumbo)
pkg_check_modules(EXPAT REQUIRED IMPORTED_TARGET expat)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)  # Unicode forms of words
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)  # compressed files of records
pkg_check_modules(HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)  # the server
pkg_check_modules(PROMETHEUS REQUIRED IMPORTED_TARGET prometheus-cpp-core)  # its metrics
pkg_check_modules(ISAL IMPORTED_TARGET libisal)  # optional: a faster CRC32C for RocksDB
if(FOVEA_PDF)
  pkg_check_modules(POPPLER_CPP REQUIRED IMPORTED_TARGET poppler-cpp)
endif()
