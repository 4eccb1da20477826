#!/usr/bin/env bash
# Installs what fovea is built from: packages of Debian 12, Ubuntu 24.04 or newer.
#
# Usage: scripts/install_deps.sh [--dev] [--browser]
#   --dev      also what developers need: formatter, linter, benchmark library
#   --browser  also the browser in which the server's page is tested, where this system has it as a
#              package (Debian; Ubuntu has a snap alone)
#
# Does nothing, and asks for no rights, when all of them are there.
set -euo pipefail

packages=(
  # The build.
  g++ make cmake ninja-build ccache pkg-config
  # Numerics: matrix products, SIMD, the vector indexes and the BLAS below them.
  # (oneDNN's CMake package asks for OpenCL.)
  libdnnl-dev ocl-icd-opencl-dev libhwy-dev libfaiss-dev libopenblas-dev
  # Storage and text index.
  librocksdb-dev libisal-dev libsqlite3-dev libutf8proc-dev libxxhash-dev
  # Tokenizers and documents. (Newer SentencePiece packages ask for protobuf; poppler-data has the
  # encodings of Chinese, Japanese and Korean PDF.)
  libpcre2-dev libsentencepiece-dev libprotobuf-dev libgumbo-dev libexpat1-dev
  libpoppler-cpp-dev poppler-data
  # The server.
  libcpp-httplib-dev prometheus-cpp-dev
  # Everything else.
  libabsl-dev libcli11-dev nlohmann-json3-dev libssl-dev zlib1g-dev libzstd-dev
  # Tests, and the Python package.
  libgtest-dev libgmock-dev python3-venv python3-dev
  # Downloads the default model.
  python3 python3-pip ca-certificates
)
for option in "$@"; do
  case "$option" in
    --dev) packages+=(clang-format clang-tidy libbenchmark-dev) ;;
    --browser)
      if grep -qx 'ID=debian' /etc/os-release; then
        packages+=(chromium chromium-driver)
      else
        echo "Chromium is no package of this system: the test of the server's page will be skipped"
      fi
      ;;
    *)
      echo "install_deps.sh: unknown option $option: want --dev, --browser or nothing" >&2
      exit 2
      ;;
  esac
done

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "install_deps.sh: this system has no apt-get: install the equivalents of" >&2
  echo "  ${packages[*]}" >&2
  exit 1
fi

installed="$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true)"
missing=()
for package in "${packages[@]}"; do
  grep -qx "$package installed" <<<"$installed" || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  exit 0
fi

as_root=()
if [[ $EUID -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "install_deps.sh: as root, run: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi

# Runs quietly; shows everything when it fails.
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
quietly() {
  if ! "$@" >"$log" 2>&1; then
    cat "$log" >&2
    echo "install_deps.sh: failed: $*" >&2
    exit 1
  fi
}
echo "Installing ${#missing[@]} packages: ${missing[*]}"
quietly "${as_root[@]}" apt-get update -q
quietly "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -q -y --no-install-recommends "${missing[@]}"
