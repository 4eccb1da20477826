// Approximate nearest keys of one memory layer of a sealed segment: coded scans and FAISS behind
// one interface, an index for each KV head, built from stored keys and searched by the query heads
// of its group. Candidates are approximate and unordered; whoever searches rescores them with the
// stored keys.
//
// "Scan2", "Scan4" and "Scan8" read codes of so many bits a dimension of all keys
// (compute/code_scan.h): they hardly ever miss, and the number of candidates is their whole effort.
//
// FAISS specifications are index_factory strings ("IVF1024,Flat", "HNSW32", "SQ8", "Flat"). The
// keys are prepared so that these find inner products (index-study: raw inner product loses
// needles): the mean key is removed (a constant per query: it changes no ranking) and, for
// structures that need L2 (IVF, HNSW), one dimension makes all norms equal, so that the nearest in
// L2 is the largest inner product (Bachrach et al. 2014).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "compute/key_scan.h"

namespace fovea::index {

class DeviceIndex;  // index/device_index.h

// Keys of one KV head: runs with ids relative to the segment (slot − slot_begin), ascending. Ids
// between runs belong to deleted tokens.
using HeadKeys = std::vector<compute::KeyRun>;

// What may be returned: bit i of the map is id i. Null map: everything.
struct IdFilter {
  const std::vector<uint64_t>* bits = nullptr;
  bool Allows(int64_t id) const {
    return bits == nullptr || ((*bits)[static_cast<size_t>(id) >> 6] >> (id & 63) & 1) != 0;
  }
};

// How hard a search tries: what LayerSearchArgs is given.
struct Effort {
  int n_probe = 0;
  int n_candidates = 0;
};

struct LayerSearchArgs {
  const float* queries = nullptr;  // [n_queries, n_heads, head_dim]
  int64_t n_queries = 0;
  int64_t n_heads = 0;   // a multiple of the index's n_kv_heads; query head h has KV head
                         // h / (n_heads / n_kv_heads)
  int n_candidates = 0;  // wanted per query and head
  int n_probe = 0;       // IVF: lists probed; HNSW: efSearch; ignored by others. 0: a default
  // Applied inside the search. Where FAISS cannot (PQ scans), more is fetched and what is not
  // allowed dropped; queries that find too few allowed keys look further by themselves (more lists,
  // more results; HNSW: a scan of what is allowed).
  IdFilter filter;
};

// Immutable; Search is thread-safe with a Device a thread.
class LayerIndex {
 public:
  // keys: one HeadKeys per KV head, all with the same ids. `spec` as above. On a GPU, where FAISS
  // has a part for it, IVF structures of scalar and product quantisers are trained and filled
  // there; what comes of it is the same kind of structure, which any build reads.
  // InvalidArgument for a specification that neither fovea nor FAISS knows or that cannot hold
  // these keys (an IVF with more lists than keys). No keys at all are fine: nothing is found. One
  // thread a head.
  static absl::StatusOr<std::unique_ptr<LayerIndex>> Build(compute::Device& device,
                                                           const std::string& spec,
                                                           const std::vector<HeadKeys>& keys,
                                                           int64_t head_dim,
                                                           const Progress& progress);
  // The bytes that Save wrote. DataLoss for anything else, NotFound for no file.
  static absl::StatusOr<std::unique_ptr<LayerIndex>> Load(const std::filesystem::path& path);
  virtual ~LayerIndex() = default;

  // Durable and atomic (temporary name, fsync, rename).
  virtual absl::Status Save(const std::filesystem::path& path) const = 0;

  // candidates = [n_queries, n_heads, n_candidates], ids, each once; −1 at the end of a row that
  // found fewer. The same whatever the number of threads.
  virtual absl::Status Search(compute::Device& device, const LayerSearchArgs& args,
                              std::vector<int64_t>* candidates) const = 0;

  // Whether what a query finds is the same, bit for bit, whatever queries it is searched with.
  // (From twenty queries on FAISS adds up the distances to its lists' centroids in another order.)
  virtual bool is_same_in_batches() const = 0;

  virtual const std::string& spec() const = 0;
  virtual int64_t n_kv_heads() const = 0;
  virtual int64_t n_keys() const = 0;  // per KV head
  // The effort that a calibration found to be enough (calibration.h), kept in the file. Zeros: none
  // did.
  Effort effort() const { return effort_; }
  void set_effort(Effort effort) { effort_ = effort; }  // before anybody searches
  // Where the effort of a search can be set, its range (IVF: 1 … nlist; HNSW: … 4096); {0,0}: not.
  virtual std::pair<int, int> ProbeRange() const = 0;

  // What a copy takes of the memory of a device that searches this index by itself: a GPU where
  // FAISS has a part for it, and IVF structures of scalar and product quantisers whose effort is
  // within its limits. 0: none does.
  virtual size_t DeviceBytes(const compute::Device& /*device*/) const { return 0; }
  // Such a copy, which does not refer to this index but on CPUs. ResourceExhausted where there is
  // no room; Unimplemented where DeviceBytes is 0.
  virtual absl::StatusOr<std::unique_ptr<DeviceIndex>> CopyTo(compute::Device& device) const;

 private:
  Effort effort_;
};

// Version of the FAISS in this build, "1.7.3", and whether it has a part for GPUs.
std::string FaissVersion();
bool FaissHasGpuPart();

// InvalidArgument unless `spec` is "auto", "exact", a coded scan or something FAISS can build for
// `head_dim`.
absl::Status ValidateSpec(const std::string& spec, int64_t head_dim);

}  // namespace fovea::index
