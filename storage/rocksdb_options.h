// How RocksDB is set up: durability, memory, compression. Only for sources that speak to RocksDB.
#pragma once

#include <memory>
#include <vector>

#include "rocksdb/cache.h"
#include "rocksdb/db.h"
#include "storage/document_store.h"

namespace fovea::storage {

// Options of the database. `env` is borrowed.
rocksdb::DBOptions DatabaseOptions(const StoreOptions& options, rocksdb::Env* env);

// Options of each column family, in the order of ColumnFamily, and of RocksDB's default one, which
// comes last and holds nothing.
std::vector<rocksdb::ColumnFamilyDescriptor> FamilyDescriptors(
    const std::shared_ptr<rocksdb::Cache>& block_cache);

// For iterators over families in which nothing is deleted by ranges: all but the blocks', which are
// read by their keys. Where RocksDB 7.8 looks for range tombstones, found or not, its iterators
// forget that a block could not be read when they go on to the next table file: records are missing
// without a word.
rocksdb::ReadOptions WalkOptions();

}  // namespace fovea::storage
