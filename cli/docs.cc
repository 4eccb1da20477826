// fovea docs: the documents of a memory: list, show, delete.
#include <algorithm>
#include <memory>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/session.h"
#include "cli/streams.h"
#include "cli/text_format.h"
#include "memory/generation.h"
#include "memory/memory.h"
#include "memory/upkeep/delete_documents.h"

namespace fovea::cli {
namespace {

using storage::DocumentRecord;

struct DocsArguments {
  std::string memory;
  std::vector<std::string> ids;
  std::vector<std::string> collections;
  OutputOptions output;
};

bool IsIn(const DocumentRecord& document, const std::vector<std::string>& collections) {
  return std::any_of(collections.begin(), collections.end(),
                     [&](const std::string& name) { return document.IsIn(name); });
}

absl::StatusOr<ExitCode> RunList(const DocsArguments& arguments) {
  ASSIGN_OR_RETURN(const auto memory, OpenMemory(arguments.memory, storage::OpenMode::kRead));
  const auto generation = memory->Current();
  RETURN_IF_ERROR(memory::CheckCollections(*generation, arguments.collections));
  for (const DocumentRecord& document : generation->documents) {
    if (!arguments.collections.empty() && !IsIn(document, arguments.collections)) continue;
    RETURN_IF_ERROR(
        WriteOutput(arguments.output.json ? JsonLine(ToJson(document)) : FormatDocument(document)));
  }
  return kDone;
}

absl::StatusOr<ExitCode> RunShow(const DocsArguments& arguments) {
  ASSIGN_OR_RETURN(const auto memory, OpenMemory(arguments.memory, storage::OpenMode::kRead));
  const auto generation = memory->Current();
  for (const std::string& id : arguments.ids) {
    ASSIGN_OR_RETURN(const DocumentRecord* document, memory::FindDocument(*generation, id));
    if (!arguments.output.json) {
      // Exactly the stored bytes: this is how a text is taken out again.
      RETURN_IF_ERROR(memory::ReadText(*generation, *document, WriteOutput));
      continue;
    }
    std::string text;
    RETURN_IF_ERROR(memory::ReadText(*generation, *document, [&text](std::string_view piece) {
      text += piece;
      return absl::OkStatus();
    }));
    Json json = ToJson(*document);
    json["text"] = std::move(text);
    RETURN_IF_ERROR(WriteOutput(JsonLine(json)));
  }
  return kDone;
}

absl::StatusOr<ExitCode> RunDelete(const DocsArguments& arguments) {
  ASSIGN_OR_RETURN(const auto memory, OpenMemory(arguments.memory, storage::OpenMode::kWrite));
  const memory::Memory::Removed removed = memory::DeleteDocuments(
      memory.get(), arguments.ids, arguments.collections, Progress(nullptr, InterruptFlag()));
  if (!removed.status.ok() && removed.gone.empty()) return removed.status;
  Json deleted = Json::array();
  for (const DocumentRecord& document : removed.gone) {
    if (arguments.output.json) {
      deleted.push_back(
          {{"id", document.id}, {"title", document.title()}, {"source", document.source()}});
    } else {
      RETURN_IF_ERROR(WriteOutput(StrCat("deleted ", FormatDocument(document))));
    }
  }
  if (arguments.output.json) {
    RETURN_IF_ERROR(WriteOutput(JsonLine({{"deleted", std::move(deleted)}})));
  }
  RETURN_IF_ERROR(removed.status);
  return kDone;
}

CLI::App* AddDocsCommand(CLI::App* docs, const std::string& name, const std::string& description,
                         DocsArguments* arguments) {
  CLI::App* command = docs->add_subcommand(name, description);
  AddMemoryOption(command, &arguments->memory)->required();
  AddOutputOptions(command, &arguments->output);
  return command;
}

void AddCollectionOption(CLI::App* command, DocsArguments* arguments) {
  AddRepeatedOption(command, "--collection", &arguments->collections,
                    "Documents of this collection (repeatable)")
      ->type_name("NAME");
}

}  // namespace

void AddDocs(CLI::App& app, Run* run) {
  CLI::App* docs = app.add_subcommand("docs", "List, show or delete the documents of a memory");
  docs->require_subcommand(1);
  SetExample(docs, "fovea docs list --memory notes");
  const auto arguments = std::make_shared<DocsArguments>();

  CLI::App* list =
      AddDocsCommand(docs, "list", "All documents, or those of collections", arguments.get());
  AddCollectionOption(list, arguments.get());
  SetExample(list, "fovea docs list --memory notes --collection letters");
  list->callback([arguments, run] { *run = [arguments] { return RunList(*arguments); }; });

  CLI::App* show =
      AddDocsCommand(docs, "show", "The text of documents, as it was ingested", arguments.get());
  show->add_option("ID", arguments->ids, "Ids, or the beginnings of ids")->required();
  SetExample(show, "fovea docs show --memory notes 3f2a91c04b77");
  show->callback([arguments, run] { *run = [arguments] { return RunShow(*arguments); }; });

  CLI::App* remove =
      AddDocsCommand(docs, "delete", "Delete documents, or a whole collection", arguments.get());
  remove->add_option("ID", arguments->ids, "Ids, or the beginnings of ids");
  AddCollectionOption(remove, arguments.get());
  SetExample(remove, "fovea docs delete --memory notes 3f2a91c04b77");
  remove->callback([arguments, run] {
    if (arguments->ids.empty() && arguments->collections.empty()) {
      throw CLI::RequiredError("ID or --collection");
    }
    *run = [arguments] { return RunDelete(*arguments); };
  });
}

}  // namespace fovea::cli
