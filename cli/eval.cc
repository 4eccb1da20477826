// fovea eval: measures a model with its adapter and memory, in memories that it makes itself.
#include <filesystem>
#include <memory>
#include <utility>

#include "cli/command.h"
#include "cli/eval_run.h"
#include "cli/options.h"
#include "eval/context_share.h"
#include "eval/dictionary.h"
#include "eval/labelled_examples.h"
#include "eval/natural.h"
#include "eval/passkey.h"
#include "eval/perplexity.h"
#include "eval/planted_facts.h"
#include "eval/question_files.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kMostCount = 1 << 30;

// --- Options that several evaluations have ---

CLI::Option* AddCount(CLI::App* command, const std::string& name, int64_t* count,
                      const std::string& description, int64_t least = 1) {
  return command->add_option(name, *count, description)
      ->check(CLI::Range(least, static_cast<int64_t>(kMostCount)))
      ->capture_default_str()
      ->type_name("N");
}

void AddSizes(CLI::App* command, EvalArguments* arguments, const std::string& sizes,
              const std::string& description) {
  arguments->tokens = {sizes};
  command->add_option("--tokens", arguments->tokens, StrCat(description, " (default: ", sizes, ")"))
      ->delimiter(',')
      ->check([](const std::string& text) {
        const absl::StatusOr<int64_t> tokens = ParseTokens(text);
        return tokens.ok() ? std::string() : std::string(tokens.status().message());
      })
      ->type_name("N,…");
}

void AddFiles(CLI::App* command, const std::string& name, std::vector<fs::path>* files,
              const std::string& description) {
  command
      ->add_option_function<std::vector<std::string>>(
          name,
          [files](const std::vector<std::string>& names) {
            files->assign(names.begin(), names.end());
          },
          description)
      ->type_name("FILE…");
}

void AddModes(CLI::App* command, EvalArguments* arguments) {
  command
      ->add_option("--mode", arguments->common.ways.modes,
                   "Searches of the memory: approximate, exact, dense")
      ->delimiter(',')
      ->check(CLI::IsMember({"approximate", "exact", "dense"}))
      ->type_name("MODE,…")
      ->capture_default_str();
  command
      ->add_option("--top-k", arguments->common.ways.top_k,
                   "Keys kept per query head (default: the model's)")
      ->check(CLI::Range(1, kMostCount))
      ->type_name("N");
}

void AddWays(CLI::App* command, EvalArguments* arguments, const std::vector<std::string>& ways,
             int max_tokens) {
  eval::WayOptions& options = arguments->common.ways;
  options.ways = ways;
  options.max_tokens = max_tokens;
  command
      ->add_option("--ways", options.ways,
                   "memory (by each --mode), passage (the right one in the prompt), bm25[:N], "
                   "attention[:N], both[:N] (N passages found, memory off), default, closed")
      ->delimiter(',')
      ->check([](const std::string& name) {
        const absl::Status status = eval::CheckWayName(name);
        return status.ok() ? std::string() : std::string(status.message());
      })
      ->type_name("WAY,…")
      ->capture_default_str();
  AddModes(command, arguments);
  command->add_option("--max-tokens", options.max_tokens, "Longest answer")
      ->check(CLI::Range(1, kMostCount))
      ->capture_default_str()
      ->type_name("N");
  command
      ->add_option("--answers", arguments->answers,
                   "Write each question, answer and judgement there, one JSON object a line")
      ->type_name("FILE");
}

// The subcommand of an evaluation; what it alone has is added to it.
CLI::App* AddEvaluation(CLI::App* parent, const std::string& name, const std::string& description,
                        const std::shared_ptr<EvalArguments>& arguments, Run* run,
                        Evaluate evaluate, const std::string& example) {
  CLI::App* command = parent->add_subcommand(name, description);
  arguments->common.ways.modes = {"approximate"};
  AddModelOptions(command, &arguments->model);
  command
      ->add_option("--folder", arguments->folder,
                   "Where memories are made, and stay for the next run (default: a temporary "
                   "folder; a memory takes about 2.5 KB a token of the default model)")
      ->type_name("DIR");
  command->add_option("--window", arguments->window, "Tokens encoded together")
      ->check(CLI::Range(1, kMostCount))
      ->type_name("N");
  command->add_option("--index", arguments->index, "Index of the memories (default: auto)")
      ->type_name("SPEC");
  command->add_option("--seed", arguments->common.seed, "Another sample")
      ->capture_default_str()
      ->type_name("N");
  command->add_option("--plot", arguments->plot, "Draw the table there (SVG, with gnuplot)")
      ->type_name("FILE.svg");
  AddComputeOptions(command, &arguments->compute);
  AddOutputOptions(command, &arguments->output);
  SetExample(command, example);
  command->callback([arguments, run, evaluate = std::move(evaluate)] {
    *run = [arguments, evaluate] { return RunEval(evaluate, arguments.get()); };
  });
  return command;
}

void Remember(const std::vector<fs::path>& files, EvalArguments* arguments) {
  arguments->data.insert(arguments->data.end(), files.begin(), files.end());
}

void AddTexts(CLI::App* command, EvalArguments* arguments, const std::string& what) {
  AddFiles(command, "--texts", &arguments->common.texts,
           what + ": JSON records with text, one a line (.jsonl, .jsonl.zst)");
}

// Arguments of an evaluation with options of its own.
template <typename Options>
struct OwnArguments : EvalArguments {
  Options own;
};

// --- The evaluations ---

void AddPasskey(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<OwnArguments<eval::PasskeyOptions>>();
  CLI::App* command = AddEvaluation(
      parent, "passkey", "A pass key in repeated filler: how often it is found", arguments, run,
      [own = &arguments->own](const eval::Subject& subject, EvalArguments* a) {
        own->common = a->common;
        return eval::RunPasskey(subject, *own);
      },
      "fovea eval passkey --tokens 32k,256k --trials 20");
  AddSizes(command, arguments.get(), "32k", "Sizes of the memory");
  AddCount(command, "--trials", &arguments->own.n_trials, "Keys of each size");
  constexpr int kKeyTokens = 8;
  AddWays(command, arguments.get(), {"memory"}, kKeyTokens);
}

void AddFacts(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<OwnArguments<eval::FactsOptions>>();
  CLI::App* command = AddEvaluation(
      parent, "facts", "Facts planted in books: how many are answered, and their passages named",
      arguments, run,
      [own = &arguments->own](const eval::Subject& subject, EvalArguments* a) {
        own->common = a->common;
        Remember(a->common.texts, a);
        return eval::RunFacts(subject, *own);
      },
      "fovea eval facts --texts books.jsonl.zst --tokens 64k --facts 64 --mode exact,dense");
  AddSizes(command, arguments.get(), "64k", "Sizes of the memory");
  AddTexts(command, arguments.get(), "Books");
  AddCount(command, "--facts", &arguments->own.n_facts, "Facts in a memory; 1: a single one");
  AddCount(command, "--look-alikes", &arguments->own.n_lookalikes,
           "Beside each: others that differ in one of the words asked for", 0);
  AddCount(command, "--trials", &arguments->own.n_trials,
           "Memories, one after another, each with facts of its own");
  constexpr int kFactTokens = 24;
  AddWays(command, arguments.get(), {"memory"}, kFactTokens);
}

constexpr int kAnswerTokens = 40;
const std::vector<std::string> kQuestionWays = {"closed", "memory", "bm25", "default", "passage"};

struct QuestionArguments {
  std::vector<fs::path> files;
  eval::Choice choice;
  int64_t n_passages = 0;
};
using ReadSet =
    std::function<absl::StatusOr<eval::QuestionSet>(const QuestionArguments& arguments)>;

// An evaluation of questions from files.
CLI::App* AddQuestionSet(CLI::App* parent, const std::string& name, const std::string& description,
                         const std::string& files,
                         const std::shared_ptr<OwnArguments<QuestionArguments>>& arguments,
                         Run* run, const ReadSet& read, const std::string& example) {
  CLI::App* command = AddEvaluation(
      parent, name, description, arguments, run,
      [own = &arguments->own, name, read](const eval::Subject& subject,
                                          EvalArguments* a) -> absl::StatusOr<eval::Report> {
        Remember(own->files, a);
        Remember(a->common.texts, a);
        own->choice.seed = a->common.seed;
        ASSIGN_OR_RETURN(const eval::QuestionSet set, read(*own));
        return eval::RunQuestionSet(subject, name, set, a->common);
      },
      example);
  AddFiles(command, "--questions", &arguments->own.files, files);
  AddCount(command, "--limit", &arguments->own.choice.n_questions, "Questions asked");
  AddSizes(command, arguments.get(), "0", "Other text beside them, in tokens of --texts");
  AddTexts(command, arguments.get(), "Other text");
  AddWays(command, arguments.get(), kQuestionWays, kAnswerTokens);
  return command;
}

void AddQuestions(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<OwnArguments<QuestionArguments>>();
  CLI::App* command = AddQuestionSet(
      parent, "questions", "Questions on passages that lie in one memory: F1 by way to answer",
      "JSON records with context, question and answers, one a line", arguments, run,
      [](const QuestionArguments& a) {
        return eval::ReadQuestions(a.files, a.choice, a.n_passages);
      },
      "fovea eval questions --questions questions.jsonl --limit 100");
  AddCount(command, "--passages", &arguments->own.n_passages,
           "Passages in the memory, if more than those that are asked about", 0);
}

void AddStories(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<OwnArguments<QuestionArguments>>();
  AddQuestionSet(
      parent, "babi", "bAbI's stories, each seen by its own question alone", "bAbI's files",
      arguments, run,
      [](const QuestionArguments& a) { return eval::ReadStories(a.files, a.choice); },
      "fovea eval babi --questions qa1_single-supporting-fact_test.txt --tokens 16k --texts "
      "books.jsonl");
}

void AddNaturalQuestions(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<OwnArguments<QuestionArguments>>();
  AddQuestionSet(
      parent, "nq", "Natural Questions with the right passage among others (Lost in the Middle)",
      "JSON records with question, answers and ctxs, one a line", arguments, run,
      [](const QuestionArguments& a) { return eval::ReadNaturalQuestions(a.files, a.choice); },
      "fovea eval nq --questions nq-open-20_total_documents_gold_at_9.jsonl --limit 50");
}

void AddConversations(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<OwnArguments<QuestionArguments>>();
  AddQuestionSet(
      parent, "conversations", "Questions on conversations of many sessions (LoCoMo)",
      "LoCoMo's JSON", arguments, run,
      [](const QuestionArguments& a) { return eval::ReadConversations(a.files, a.choice); },
      "fovea eval conversations --questions locomo10.json --limit 200");
}

void AddNatural(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<OwnArguments<eval::NaturalOptions>>();
  CLI::App* command = AddEvaluation(
      parent, "natural", "Your own documents and questions: a folder with a questions.jsonl",
      arguments, run,
      [own = &arguments->own](const eval::Subject& subject, EvalArguments* a) {
        own->common = a->common;
        Remember({own->folder / "questions.jsonl"}, a);
        Remember(a->common.texts, a);
        return eval::RunNatural(subject, *own);
      },
      "fovea eval natural --documents notes --ways closed,bm25,default");
  command
      ->add_option_function<std::string>(
          "--documents",
          [own = &arguments->own](const std::string& folder) { own->folder = folder; },
          "The folder; questions.jsonl in it has question, answers, document (a file's name) and "
          "quote (what of it holds the answer), a JSON record a line")
      ->required()
      ->type_name("DIR");
  AddCount(command, "--limit", &arguments->own.n_questions, "Only the first questions; 0: all", 0);
  AddSizes(command, arguments.get(), "0", "Other text beside them, in tokens of --texts");
  AddTexts(command, arguments.get(), "Other text");
  AddWays(command, arguments.get(), kQuestionWays, kAnswerTokens);
}

void AddPerplexity(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<OwnArguments<eval::PerplexityOptions>>();
  CLI::App* command = AddEvaluation(
      parent, "perplexity", "Of a book's later part, by what of it and of others is in the memory",
      arguments, run,
      [own = &arguments->own](const eval::Subject& subject, EvalArguments* a) {
        own->common = a->common;
        Remember(a->common.texts, a);
        return eval::RunPerplexity(subject, *own);
      },
      "fovea eval perplexity --texts books.jsonl --tokens 4k,16k --books 8");
  AddSizes(command, arguments.get(), "4k", "Of each book, in the memory");
  AddTexts(command, arguments.get(), "Books");
  AddCount(command, "--books", &arguments->own.n_books, "Books, the first that are long enough");
  AddCount(command, "--part", &arguments->own.part_tokens, "Tokens of each that are foretold");
  AddCount(command, "--local", &arguments->own.local_tokens,
           "They are foretold in windows of so many", 2);
  AddModes(command, arguments.get());
}

void AddDictionary(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<OwnArguments<eval::DictionaryOptions>>();
  CLI::App* command = AddEvaluation(
      parent, "dictionary", "Definitions looked up, by a model of `fovea train dictionary`",
      arguments, run,
      [own = &arguments->own](const eval::Subject& subject, EvalArguments* a) {
        own->common = a->common;
        eval::Subject searched = subject;
        // To make an index of millions of tokens, which approximate search alone reads, takes
        // longer than to encode them on a GPU. A memory of an earlier run with another is refused.
        if (a->index.empty()) {
          const bool reads_index = std::ranges::count(own->common.ways.modes, "approximate") > 0;
          searched.index_spec = reads_index ? "auto" : "exact";
        }
        return eval::RunDictionary(searched, *own);
      },
      "fovea eval dictionary --model run/model --tokens 64k,1M --mode exact");
  arguments->common.ways.modes = {"exact"};
  AddSizes(command, arguments.get(), "64k", "Sizes of the memory: ten tokens a definition");
  AddCount(command, "--questions", &arguments->own.n_questions, "Definitions that are asked for");
  AddCount(command, "--look-alikes", &arguments->own.n_lookalikes,
           "Beside each key: others that differ in one symbol, at most 63", 0);
  AddModes(command, arguments.get());
}

void AddExamples(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<OwnArguments<eval::ExamplesOptions>>();
  CLI::App* command = AddEvaluation(
      parent, "icl", "Questions answered like examples, by the number of those in the memory",
      arguments, run,
      [own = &arguments->own](const eval::Subject& subject, EvalArguments* a) {
        own->common = a->common;
        Remember({own->examples, own->questions}, a);
        return eval::RunExamples(subject, *own);
      },
      "fovea eval icl --examples train_5500.label --questions TREC_10.label --count 0,1000,5000");
  const auto add_file = [&](const std::string& name, fs::path* file, const std::string& what) {
    command
        ->add_option_function<std::string>(
            name, [file](const std::string& path) { *file = path; },
            what + ": lines of a label and a question (TREC), or JSON with question and answers")
        ->required()
        ->type_name("FILE");
  };
  add_file("--examples", &arguments->own.examples, "What the memory is filled from");
  add_file("--questions", &arguments->own.questions, "What is asked");
  command->add_option("--count", arguments->own.n_examples, "Examples in the memory")
      ->delimiter(',')
      ->check(CLI::Range(0, kMostCount))
      ->type_name("N,…")
      ->capture_default_str();
  AddCount(command, "--local", &arguments->own.n_local, "Examples in every prompt", 0);
  AddCount(command, "--limit", &arguments->own.n_questions, "Questions asked");
  constexpr int kLabelTokens = 16;
  AddWays(command, arguments.get(), {"closed", "memory", "bm25"}, kLabelTokens);
}

void AddContextShare(CLI::App* parent, Run* run) {
  const auto arguments = std::make_shared<OwnArguments<eval::ContextShareOptions>>();
  CLI::App* command = AddEvaluation(
      parent, "r_d", "Share of the memory's attention that the own context gets among d of them",
      arguments, run,
      [own = &arguments->own](const eval::Subject& subject, EvalArguments* a) {
        own->common = a->common;
        Remember(a->common.texts, a);
        return eval::RunContextShare(subject, *own);
      },
      "fovea eval r_d --texts books.jsonl --contexts 1,4,16,64");
  AddTexts(command, arguments.get(), "Books");
  command->add_option("--contexts", arguments->own.contexts, "Numbers of contexts, d")
      ->delimiter(',')
      ->check(CLI::Range(1, kMostCount))
      ->type_name("N,…")
      ->capture_default_str();
  AddCount(command, "--samples", &arguments->own.n_samples, "Texts that go on from a context");
  AddCount(command, "--context-tokens", &arguments->own.context_tokens, "Of a context");
  AddCount(command, "--query-tokens", &arguments->own.query_tokens, "Of the text that goes on");
}

}  // namespace

void AddEval(CLI::App& app, Run* run) {
  CLI::App* command = app.add_subcommand(
      "eval", "Measure a model with its memory: pass keys, facts, questions, and more");
  command->require_subcommand(1);
  for (const auto add :
       {&AddPasskey, &AddFacts, &AddQuestions, &AddNatural, &AddPerplexity, &AddContextShare,
        &AddExamples, &AddDictionary, &AddStories, &AddNaturalQuestions, &AddConversations}) {
    add(command, run);
  }
  SetExample(command,
             "fovea eval passkey --tokens 32k\n"
             "  fovea eval facts --texts books.jsonl.zst --tokens 64k --json\n"
             "  fovea eval questions --questions questions.jsonl --plot f1.svg");
}

}  // namespace fovea::cli
