#include "storage/settings_copy.h"

#include <string>

#include "storage/record_codec.h"
#include "storage/rocksdb_status.h"

namespace fovea::storage {

void WriteSettingsCopy(rocksdb::FileSystem& file_system, const std::filesystem::path& folder,
                       const StoreSettings& settings) {
  const absl::StatusOr<std::string> record = EncodeSettings(settings);
  if (!record.ok()) return;
  const std::string path = folder / kSettingsCopyFileName;
  const std::string new_path = path + ".new";
  rocksdb::IOStatus status =
      rocksdb::WriteStringToFile(&file_system, *record, new_path, /*should_sync=*/true);
  if (status.ok()) status = file_system.RenameFile(new_path, path, {}, nullptr);
  status.PermitUncheckedError();
}

absl::StatusOr<StoreSettings> ReadSettingsCopy(rocksdb::FileSystem& file_system,
                                               const std::filesystem::path& folder) {
  std::string record;
  const std::string path = folder / kSettingsCopyFileName;
  RETURN_IF_ERROR(FromRocksDb(rocksdb::ReadFileToString(&file_system, path, &record), path));
  return DecodeSettings(record);
}

}  // namespace fovea::storage
