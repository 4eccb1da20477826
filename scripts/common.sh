# shellcheck shell=bash
# Sourced by the other scripts: where things are, and how they report.
set -euo pipefail
export LC_ALL=C.UTF-8 # numbers with a decimal point, whatever the user's language

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
build="$root/build/release"
export fovea="$build/bin/fovea"

say() { printf '\n== %s\n' "$*"; }
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# usage: what the script's head says.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# list_sources PATTERN…: files of the repository, tracked and new, ended by NUL. Of a copy without
# Git everything but what was built.
list_sources() {
  if git -C "$root" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git -C "$root" ls-files -z --cached --others --exclude-standard -- "$@"
  else
    local names=() pattern
    for pattern in "$@"; do names+=(-o -name "$pattern"); done
    (cd "$root" && find . -path ./build -prune -o -type f \( "${names[@]:1}" \) -printf '%P\0')
  fi | sort -z
}

# configure_release [OPTION…]: once, with these options of CMake.
configure_release() {
  [[ ! -f "$build/build.ninja" ]] || return 0
  # Where nvcc is installed: for the GPU of this machine, or where it has none so that the sources
  # of CUDA are compiled once.
  local architectures=90
  if nvidia-smi >/dev/null 2>&1; then architectures=native; fi
  (cd "$root" && cmake --preset release -DCMAKE_CUDA_ARCHITECTURES="$architectures" "$@")
}

# build_release TARGET…: configures the release build once, and builds the targets. Ninja does only
# what is missing, and runs CMake again by itself when a CMake file changed.
build_release() {
  configure_release
  cd "$root"
  cmake --build --preset release --target "$@"
}
