#include "answer/answerer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "answer/context_pool.h"
#include "answer/conversation.h"
#include "answer/excerpt.h"
#include "answer/generator.h"
#include "answer/prompt.h"
#include "answer/prompt_context.h"
#include "answer/reference_memory.h"
#include "answer/reread.h"
#include "answer/sentence_marks.h"
#include "answer/sentence_sources.h"
#include "answer/shared_model.h"
#include "documents/errors.h"
#include "documents/utf8.h"
#include "storage/find_writer.h"

namespace fovea::answer {
namespace {

using Clock = std::chrono::steady_clock;
using model::ChatMessage;

double MillisecondsBetween(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}

absl::Status CheckOptions(const AskOptions& options) {
  if (options.top_k < 0) {
    return absl::InvalidArgumentError(
        StrCat("top_k ", options.top_k, ": want at least 1, or 0 for the model's own"));
  }
  if (options.max_tokens < 0) {
    return absl::InvalidArgumentError(
        StrCat("max_tokens ", options.max_tokens, ": want 0 or more"));
  }
  if (!std::isfinite(options.temperature) || options.temperature < 0.0f) {
    return absl::InvalidArgumentError(
        StrCat("temperature ", options.temperature, ": want 0 (greedy) or more"));
  }
  if (!(options.top_p > 0.0f && options.top_p <= 1.0f)) {
    return absl::InvalidArgumentError(
        StrCat("top_p ", options.top_p, ": want more than 0, at most 1 (all tokens)"));
  }
  if (std::any_of(options.stop.begin(), options.stop.end(),
                  [](const std::string& stop) { return stop.empty(); })) {
    return absl::InvalidArgumentError("an empty stop string: every answer would end before it");
  }
  if (options.n_sources < 0) {
    return absl::InvalidArgumentError(StrCat("n_sources ", options.n_sources, ": want 0 or more"));
  }
  return absl::OkStatus();
}

// The messages of a request, told apart.
struct Messages {
  const ChatMessage* system = nullptr;   // null: none
  std::span<const ChatMessage> history;  // whole turns
  const std::string* question = nullptr;
};

// `question_name`: what errors call the question.
absl::StatusOr<Messages> TellApart(const Request& request,
                                   std::string_view question_name = "question") {
  Messages messages;
  std::span<const ChatMessage> rest = request.messages;
  if (!rest.empty() && rest.front().role == ChatMessage::Role::kSystem) {
    messages.system = &rest.front();
    rest = rest.subspan(1);
  }
  if (rest.empty()) {
    return absl::InvalidArgumentError("a request without a question: want a user message, last");
  }
  for (size_t i = 0; i < rest.size(); ++i) {
    const auto want = i % 2 == 0 ? ChatMessage::Role::kUser : ChatMessage::Role::kAssistant;
    if (rest[i].role == want) continue;
    return absl::InvalidArgumentError(
        StrCat("message ", i + (messages.system != nullptr ? 2 : 1), " is of role ",
               model::RoleName(rest[i].role), ", want ", model::RoleName(want),
               ": user and assistant take turns, and one system message may come first"));
  }
  if (rest.size() % 2 == 0) {
    return absl::InvalidArgumentError(
        "the last message is the assistant's: want a user message, the question");
  }
  for (size_t i = 0; i < request.messages.size(); ++i) {
    const ChatMessage& message = request.messages[i];
    const size_t valid_bytes = documents::ScanUtf8(message.content).valid_bytes;
    if (valid_bytes == message.content.size()) continue;
    const std::string name = &message == &rest.back()      ? StrCat("the ", question_name)
                             : &message == messages.system ? "the system message"
                                                           : StrCat("message ", i + 1);
    return documents::NotTextError(name, message.content, valid_bytes, 0, "UTF-8 text");
  }
  messages.question = &rest.back().content;
  messages.history = rest.first(rest.size() - 1);
  if (request.options.raw && (messages.system != nullptr || !messages.history.empty())) {
    return absl::InvalidArgumentError(
        "a text that is continued as it is has no system message and no earlier turns");
  }
  if (request.conversation != nullptr && !messages.history.empty()) {
    return absl::InvalidArgumentError(
        "earlier turns beside a conversation, which has its own: give one or the other");
  }
  if (messages.question->find_first_not_of(" \t\r\n") == std::string::npos) {
    return absl::InvalidArgumentError(StrCat("the ", question_name, " is empty"));
  }
  return messages;
}

// What errors of a search call its text.
constexpr std::string_view kQuery = "query";

// How often a question begins anew because another process removed what it was reading.
constexpr int kMaxAttempts = 5;

// Everything about one question on its way to an answer.
struct Inquiry {
  const Request& request;
  const std::string& question;
  PromptStyle style;
  Conversation* conversation;  // null: a single question
  PromptContext* context;
  std::shared_ptr<const memory::Generation> generation = nullptr;  // null: no memory
  bool lacks_documents = false;                                    // of the memory that it wants
  bool attends = false;       // the memory layers read the memory
  bool is_reference = false;  // prompts run as LongLLaMA runs them
  RereadPlan reread = {};
  std::unique_ptr<memory::MemorySearcher> searcher = nullptr;   // null: no memory at all
  std::unique_ptr<ReferenceMemory> reference_memory = nullptr;  // of is_reference
  bool answers_from_memory = false;                             // while the answer is made
  bool has_searched = false;  // the memory layers have read the memory, if only to find passages
  bool has_streamed = false;  // the caller has seen a piece of the answer
  std::string said = {};      // the answer's text, without marks

  const AskOptions& options() const { return request.options; }
  std::span<const ChatMessage> history() const {
    if (conversation == nullptr || options().raw) return {};
    return conversation->messages();
  }
};

class AnswererImpl final : public Answerer {
 public:
  AnswererImpl(compute::Device* device, model::Transformer* model, memory::Memory* memory,
               PromptStyle style)
      : device_(device),
        model_(model),
        memory_(memory),
        style_(std::move(style)),
        end_ids_(model::ChatEndIds(model->tokenizer(), style_.format)) {
    if (const int32_t end = model::InfillingEndId(model->tokenizer()); end >= 0) {
      raw_end_ids_.push_back(end);
    }
  }

  absl::StatusOr<Answer> Run(const Request& request) const override {
    const Clock::time_point start = Clock::now();
    RETURN_IF_ERROR(CheckOptions(request.options));
    ASSIGN_OR_RETURN(const Messages messages, TellApart(request));
    // Turns that a request brings with it may leave the window, too.
    Conversation own;
    for (size_t i = 0; i + 1 < messages.history.size(); i += 2) {
      own.AddTurn(messages.history[i].content, messages.history[i + 1].content);
    }
    const ContextPool::Lease lease = contexts_.Lend();
    Inquiry inquiry{.request = request,
                    .question = *messages.question,
                    .style = style_,
                    .conversation = request.conversation,
                    .context = lease.get()};
    if (messages.system != nullptr) inquiry.style.system_prompt = messages.system->content;
    if (request.conversation != nullptr) {
      inquiry.context = &request.conversation->context();
    } else if (!own.empty()) {
      inquiry.conversation = &own;
    }
    ASSIGN_OR_RETURN(Answer answer, Run(inquiry, start));
    if (request.conversation != nullptr && !inquiry.said.empty()) {
      request.conversation->AddTurn(inquiry.question, inquiry.said);
    }
    return answer;
  }

  std::vector<absl::StatusOr<Answer>> RunAll(std::span<const Request> requests) const override {
    std::vector<absl::StatusOr<Answer>> answers(requests.size());
    std::atomic<size_t> next{0};
    const auto run = [&] {
      for (size_t i = next++; i < requests.size(); i = next++) answers[i] = Run(requests[i]);
    };
    std::vector<std::thread> others;
    try {
      while (others.size() + 1 < std::min(requests.size(), model_.max_batch()))
        others.emplace_back(run);
    } catch (const std::system_error&) {  // no more threads to be had: fewer at a time
    }
    run();
    for (std::thread& other : others) other.join();
    return answers;
  }

  absl::StatusOr<std::vector<memory::Passage>> Search(const SearchRequest& search) const override {
    Request request;
    request.messages.push_back({ChatMessage::Role::kUser, search.query});
    request.options.reread = search.n_passages;
    request.options.reread_by = search.by;
    request.options.scope = search.scope;
    request.progress = search.progress;
    ASSIGN_OR_RETURN(const Messages messages, TellApart(request, kQuery));
    const ContextPool::Lease lease = contexts_.Lend();
    Inquiry inquiry{.request = request,
                    .question = *messages.question,
                    .style = style_,
                    .conversation = nullptr,
                    .context = lease.get()};
    for (int attempt = 1;; ++attempt) {
      RETURN_IF_ERROR(OpenView(&inquiry));
      if (inquiry.lacks_documents || inquiry.searcher == nullptr) {
        return std::vector<memory::Passage>();
      }
      absl::StatusOr<std::vector<memory::Passage>> found = FindPassages(inquiry);
      if (found.ok() || absl::IsCancelled(found.status()) || attempt == kMaxAttempts ||
          !MovedOn(&inquiry)) {
        if (found.ok()) {
          ChooseExcerpts(inquiry, inquiry.question, &*found);
        }
        return found;
      }
    }
  }

  SharedModel::Statistics statistics() const override { return model_.statistics(); }

  std::string Hint(const AskOptions& options) const override {
    const model::MemoryConfig& config = model_.memory_config();
    if (config.trained) return "";
    const bool attends = !config.mem_layers.empty();
    const RereadPlan plan =
        PlanReread(options, model_.config(), config, attends).value_or(RereadPlan{.n_passages = 1});
    const std::string name = model_.config().name.empty() ? "this model" : model_.config().name;
    if (plan.n_passages == 0) {
      return StrCat(name, " has no adapter",
                    attends ? ": its memory layers were not trained to read a memory, and no "
                              "passage is read beside it"
                            : " and no memory layers, and no passage is read: its answers are its "
                              "own",
                    ". --reread N gives it N passages.");
    }
    const std::string_view how = plan.by == RereadBy::kBm25        ? "by their words (BM25)"
                                 : plan.by == RereadBy::kAttention ? "by its attention"
                                                                   : "by words and attention";
    if (!attends) {
      return StrCat(name, " has no adapter and no memory layers: it answers from passages found ",
                    how, ". Ingest with --adapter DIR to let it read the memory.");
    }
    return StrCat(name,
                  " has no adapter: its memory layers were not trained to read a memory, so it "
                  "answers from passages found ",
                  how, ".");
  }

 private:
  absl::StatusOr<Answer> Run(Inquiry& inquiry, Clock::time_point start) const {
    for (int attempt = 1;; ++attempt) {
      RETURN_IF_ERROR(OpenView(&inquiry));
      if (inquiry.lacks_documents) return NothingToAnswerFrom();
      Answer answer;
      answer.question = inquiry.question;
      if (inquiry.searcher != nullptr) answer.usage.memory_tokens = inquiry.searcher->n_tokens();
      const absl::Status status = AnswerInto(inquiry, start, &answer);
      if (status.ok()) return answer;
      // Stopped before the first token: an answer without text, not an error.
      if (absl::IsCancelled(status)) {
        answer.finish_reason = "cancelled";
        return answer;
      }
      if (attempt == kMaxAttempts || inquiry.has_streamed || !MovedOn(&inquiry)) return status;
    }
  }

  // What the question would read again.
  absl::StatusOr<std::vector<memory::Passage>> FindPassages(Inquiry& inquiry) const {
    std::vector<int32_t> prompt_ids;
    if (inquiry.reread.by != RereadBy::kBm25) {
      ASSIGN_OR_RETURN(Prompt prompt, FitPrompt(model_.tokenizer(), inquiry.style,
                                                {.history = {},
                                                 .question = inquiry.question,
                                                 .question_name = kQuery,
                                                 .passages = {}},
                                                model_.config().max_position_embeddings));
      prompt_ids = std::move(prompt.ids);
      if (inquiry.is_reference) {
        inquiry.reference_memory = std::make_unique<ReferenceMemory>(
            device_, inquiry.searcher.get(), model_.memory_config().entry_type,
            inquiry.request.progress);
      }
      inquiry.context->UseReference(inquiry.reference_memory.get());
    }
    return ChoosePassages({.plan = inquiry.reread,
                           .question = inquiry.question,
                           .prompt_ids = std::move(prompt_ids),
                           .model = &model_,
                           .searcher = inquiry.searcher.get(),
                           .context = inquiry.context,
                           .is_reference = inquiry.is_reference},
                          inquiry.request.progress);
  }

  // Whether another process has changed the memory since the question was put to it. What the
  // question still had to read may have been deleted and its space freed.
  bool MovedOn(Inquiry* inquiry) const {
    inquiry->context->Clear();
    inquiry->reference_memory.reset();
    inquiry->searcher.reset();
    if (memory_ == nullptr || !memory_->Refresh().ok()) return false;
    // Another request may have caught up with the change already.
    return memory_->Current() != inquiry->generation;
  }

  // The memory as it is now, as far as the question is to see it.
  absl::Status OpenView(Inquiry* inquiry) const {
    const AskOptions& options = inquiry->options();
    const model::MemoryConfig& config = model_.memory_config();
    const std::shared_ptr<const memory::Generation>& generation = inquiry->generation;
    bool has_memory = memory_ != nullptr;
    if (has_memory) {
      RETURN_IF_ERROR(memory_->Refresh().status());
      inquiry->generation = memory_->Current();
      has_memory = generation->settings.has_value();  // else nothing was ever ingested
      inquiry->lacks_documents =
          !has_memory && (options.use_memory || options.reread.value_or(0) > 0);
      if (inquiry->lacks_documents) return absl::OkStatus();
    }
    inquiry->is_reference =
        (has_memory ? generation->settings->encoding : config.encoding) == "reference";
    inquiry->attends = has_memory && options.use_memory && !config.mem_layers.empty();
    ASSIGN_OR_RETURN(inquiry->reread,
                     PlanReread(options, model_.config(), config, inquiry->attends));
    if (!has_memory) inquiry->reread.n_passages = 0;
    if (!has_memory || (!options.use_memory && inquiry->reread.n_passages == 0)) {
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(memory::CheckModel(*generation, model_.constant()));
    memory::SearchOptions search;
    search.mode = options.mode.value_or(inquiry->is_reference ? memory::SearchMode::kDense
                                                              : memory::SearchMode::kApproximate);
    search.top_k = options.top_k > 0 ? options.top_k : config.top_k;
    search.scope = options.scope;
    search.audit = options.audit;
    search.progress = inquiry->request.progress;
    ASSIGN_OR_RETURN(inquiry->searcher,
                     memory::MemorySearcher::Create(device_, generation, search));
    inquiry->lacks_documents = inquiry->searcher->n_tokens() == 0;
    return absl::OkStatus();
  }

  absl::Status NothingToAnswerFrom() const {
    return absl::FailedPreconditionError(
        StrCat(memory_->folder(), ": holds no documents that the question could be answered from: ",
               "store some first (`fovea ingest --memory DIR PATH…`), or ask the model alone ",
               "(--no-memory; of a server \"fovea\": {\"memory\": false}; in Python ",
               "use_memory=False)"));
  }

  absl::Status AnswerInto(Inquiry& inquiry, Clock::time_point start, Answer* answer) const {
    const AskOptions& options = inquiry.options();
    const PromptStyle& style = inquiry.style;
    const model::Tokenizer& tokenizer = model_.tokenizer();
    // LongLLaMA's prompts have no limit: what is too much for the window goes to the memory.
    const int64_t window = inquiry.is_reference ? std::numeric_limits<int32_t>::max()
                                                : model_.config().max_position_embeddings;
    model::MemorySource* source = inquiry.attends ? inquiry.searcher.get() : nullptr;

    // Turns leave until the question alone fits. An answer is cut short rather than a question.
    // A long limit of the answer takes no more than its share from what is read.
    int64_t max_prompt_tokens = window - std::min<int64_t>(options.max_tokens, window / 4);
    PromptRequest request{.history = inquiry.history(),
                          .question = inquiry.question,
                          .passages = {},
                          .raw = options.raw};
    NoteWriter(inquiry, answer);
    RETURN_IF_ERROR(RetireTurns(inquiry, max_prompt_tokens, &request));
    ASSIGN_OR_RETURN(const std::vector<int32_t> bare_ids, RenderPrompt(tokenizer, style, request));
    max_prompt_tokens =
        std::max(max_prompt_tokens, std::min(static_cast<int64_t>(bare_ids.size()), window - 1));
    PrepareContext(inquiry);
    if (inquiry.attends && inquiry.conversation != nullptr) {
      for (const model::EncodedWindow& turn : inquiry.conversation->session_windows()) {
        inquiry.searcher->AddSessionWindow(turn);
      }
    }
    if (inquiry.is_reference) {
      inquiry.reference_memory = std::make_unique<ReferenceMemory>(
          device_, inquiry.attends ? inquiry.searcher.get() : nullptr,
          model_.memory_config().entry_type, inquiry.request.progress);
    }
    inquiry.context->UseReference(inquiry.reference_memory.get());

    if (static_cast<int64_t>(bare_ids.size()) <= max_prompt_tokens) {
      ASSIGN_OR_RETURN(answer->reread, ChoosePassages({.plan = inquiry.reread,
                                                       .question = inquiry.question,
                                                       .prompt_ids = bare_ids,
                                                       .model = &model_,
                                                       .searcher = inquiry.searcher.get(),
                                                       .context = inquiry.context,
                                                       .is_reference = inquiry.is_reference},
                                                      inquiry.request.progress));
      inquiry.has_searched =
          inquiry.attends && inquiry.reread.n_passages > 0 && inquiry.reread.by != RereadBy::kBm25;
    }
    std::vector<std::string> texts;
    texts.reserve(answer->reread.size());
    for (const memory::Passage& passage : answer->reread) texts.push_back(passage.text);
    request.passages = texts;
    // Passages are worth more than old turns, which the session memory keeps.
    const size_t n_retired_before =
        inquiry.conversation == nullptr ? 0 : inquiry.conversation->session_windows().size();
    RETURN_IF_ERROR(RetireTurns(inquiry, max_prompt_tokens, &request));
    if (inquiry.attends && inquiry.conversation != nullptr) {
      const auto& turns = inquiry.conversation->session_windows();
      for (size_t i = n_retired_before; i < turns.size(); ++i) {
        inquiry.searcher->AddSessionWindow(turns[i]);
      }
      PrepareContext(inquiry);
    }
    ASSIGN_OR_RETURN(const Prompt prompt, FitPrompt(tokenizer, style, request, max_prompt_tokens));
    NotePassages(inquiry, prompt, answer);
    answer->reread.resize(static_cast<size_t>(prompt.n_passages));
    for (memory::Passage& passage : answer->reread) passage.reread = true;
    // What LongLLaMA's prompts add to the memory stays in it.
    if (!inquiry.is_reference && !answer->reread.empty() && !inquiry.reread.with_memory) {
      source = nullptr;
      // The first pass, if there was one, read the memory.
      if (inquiry.attends) inquiry.context->Clear();
    }
    inquiry.answers_from_memory = source != nullptr;
    inquiry.has_searched = inquiry.has_searched || inquiry.answers_from_memory;
    NoteSearch(inquiry, answer);
    answer->usage.prompt_tokens = static_cast<int64_t>(prompt.ids.size());

    if (inquiry.searcher != nullptr) inquiry.searcher->ResetMass();
    GenerateArgs generate{
        .model = &model_,
        .memory = source,
        .context = inquiry.context,
        .logits = {},
        .max_tokens =
            std::min<int64_t>(options.max_tokens, window - static_cast<int64_t>(prompt.ids.size())),
        .sampling = {.temperature = options.temperature,
                     .top_p = options.top_p,
                     .seed = options.seed},
        .stop = options.stop,
        .end_ids = options.raw ? raw_end_ids_ : end_ids_,
        .skip_leading_space = !options.raw,
        .stream = nullptr,
    };
    StreamCallback stream;
    if (inquiry.request.stream != nullptr) {
      stream = [&inquiry](std::string_view piece) {
        inquiry.has_streamed = true;
        return inquiry.request.stream(piece);
      };
    }
    SentenceSources sentence_sources(answer->reread,
                                     inquiry.answers_from_memory ? inquiry.searcher.get() : nullptr,
                                     options.n_sources);
    SentenceMarks marks(
        [&](std::string_view sentence) { return sentence_sources.SourceOf(sentence); }, stream);
    generate.stream =
        options.marks ? [&marks](std::string_view piece) { return marks.Push(piece); } : stream;
    RETURN_IF_ERROR(inquiry.context->Run(prompt.ids, model_, source, &generate.logits,
                                         inquiry.request.progress));
    if (options.marks) sentence_sources.Begin();
    ASSIGN_OR_RETURN(Generated generated, Generate(std::move(generate), inquiry.request.progress));
    answer->text = std::move(generated.text);
    const auto trim = [&options](std::string* text) {
      if (!options.raw) text->erase(text->find_last_not_of(" \t\r\n") + 1);
    };
    trim(&answer->text);
    inquiry.said = answer->text;
    if (options.marks) {
      marks.Finish();
      RETURN_IF_ERROR(sentence_sources.status());
      answer->text = marks.TakeText();
      answer->marks = marks.TakeMarks();
      trim(&answer->text);
    }
    answer->finish_reason = std::move(generated.finish_reason);
    answer->usage.completion_tokens = generated.n_tokens;
    answer->timing.prefill_ms = MillisecondsBetween(start, generated.first_token_at);
    answer->timing.decode_ms_per_token = generated.ms_per_token;
    return NameSources(inquiry, sentence_sources.named(), answer);
  }

  // Takes the oldest turns out of the conversation until the prompt fits or none is left.
  absl::Status RetireTurns(Inquiry& inquiry, int64_t max_prompt_tokens,
                           PromptRequest* request) const {
    request->history = inquiry.history();
    while (!request->history.empty()) {
      ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                       RenderPrompt(model_.tokenizer(), inquiry.style, *request));
      if (static_cast<int64_t>(ids.size()) <= max_prompt_tokens) break;
      RETURN_IF_ERROR(inquiry.request.progress.CheckCancelled());
      RETURN_IF_ERROR(
          inquiry.conversation->RetireOldestTurn(inquiry.style, model_.TakeTurn().get()));
      request->history = inquiry.history();
    }
    return absl::OkStatus();
  }

  static bool Names(std::span<const memory::Passage> passages, const memory::Passage& wanted) {
    return std::any_of(passages.begin(), passages.end(), [&](const memory::Passage& passage) {
      return passage.slot_begin == wanted.slot_begin;
    });
  }

  // Forgets what the conversation's context was run with when that is not what it would be now.
  static void PrepareContext(const Inquiry& inquiry) {
    if (inquiry.request.conversation == nullptr) return;
    inquiry.request.conversation->UseView(
        {.epoch = inquiry.searcher ? inquiry.searcher->generation().epoch : 0,
         .n_session_windows = inquiry.conversation->session_windows().size(),
         .mode = inquiry.options().mode,
         .top_k = inquiry.options().top_k,
         .attends = inquiry.attends,
         .collections = inquiry.options().scope.collections,
         .documents = inquiry.options().scope.documents});
  }

  // Chooses what is shown of each passage.
  static void ChooseExcerpts(const Inquiry& inquiry, std::string_view wanted,
                             std::vector<memory::Passage>* passages) {
    for (memory::Passage& passage : *passages) {
      // An answer is none the worse where a window beside it cannot be read.
      const memory::Surroundings around =
          memory::ReadSurroundings(inquiry.searcher->generation(), passage)
              .value_or(memory::Surroundings());
      ChooseExcerpt(wanted, around, &passage);
    }
  }

  // `named`: what marks of the text name, each of which may have little of the whole attention.
  static absl::Status NameSources(const Inquiry& inquiry, std::span<const memory::Passage> named,
                                  Answer* answer) {
    constexpr int kMostLookedAt = 64;
    const size_t n_sources = static_cast<size_t>(inquiry.options().n_sources);
    answer->sources.assign(named.begin(), named.end());
    for (const memory::Passage& passage : answer->reread) {
      if (!Names(answer->sources, passage)) answer->sources.push_back(passage);
    }
    // A mass that was measured in the first pass, or of one sentence, is not of this answer.
    for (memory::Passage& passage : answer->sources) passage.mass = 0.0;
    if (inquiry.has_searched && inquiry.options().audit) answer->audit = inquiry.searcher->Audit();
    if (inquiry.answers_from_memory && n_sources > 0) {
      ASSIGN_OR_RETURN(const std::vector<memory::Passage> attended,
                       memory::PassagesByMass(
                           *inquiry.searcher, inquiry.searcher->Mass(),
                           named.empty() ? inquiry.options().n_sources
                                         : std::max(inquiry.options().n_sources, kMostLookedAt)));
      for (const memory::Passage& passage : attended) {
        const auto known = std::find_if(
            answer->sources.begin(), answer->sources.end(),
            [&](const memory::Passage& other) { return other.slot_begin == passage.slot_begin; });
        if (known != answer->sources.end()) {
          known->mass = passage.mass;
          known->peak_start = passage.peak_start;
          known->peak_end = passage.peak_end;
        } else if (passage.mass >= kLeastSourceMass) {
          answer->sources.push_back(passage);
        }
      }
    }
    if (answer->sources.size() > n_sources) answer->sources.resize(n_sources);
    const std::string wanted = StrCat(inquiry.question, "\n", inquiry.said);
    ChooseExcerpts(inquiry, wanted, &answer->sources);
    return absl::OkStatus();
  }

  // Says why an answer takes longer than usual, and may lack something.
  static void NoteWriter(const Inquiry& inquiry, Answer* answer) {
    if (inquiry.searcher == nullptr) return;
    const std::optional<pid_t> writer =
        storage::FindWriter(inquiry.generation->source->store().folder());
    if (!writer) return;
    answer->notes.push_back(StrCat("process ", *writer,
                                   " is writing to this memory: while it works answers take ",
                                   "longer, and see the documents that it has completed"));
  }

  // Says what was asked of a search that was not made, and why it was made elsewhere.
  static void NoteSearch(const Inquiry& inquiry, Answer* answer) {
    const AskOptions& options = inquiry.options();
    if (inquiry.has_searched && !inquiry.searcher->host_note().empty()) {
      answer->notes.push_back(inquiry.searcher->host_note());
    }
    std::string asked;
    const auto ask = [&asked](bool is_asked, std::string_view name) {
      if (is_asked) asked += StrCat(asked.empty() ? "" : ", ", name);
    };
    ask(options.audit, "--audit");
    ask(options.mode.has_value(), "--mode");
    ask(options.top_k > 0, "--top-k");
    if (inquiry.has_searched || asked.empty()) return;
    const std::string_view why = !options.use_memory           ? "it is off"
                                 : inquiry.searcher == nullptr ? "there is none"
                                 : !inquiry.attends
                                     ? "the model has no memory layers"
                                     : "it is off while passages are read again: pass "
                                       "--reread-memory on, or --reread 0";
    answer->notes.push_back(
        StrCat("the memory was not searched, and ", asked, " had no effect: ", why));
  }

  // Says what was to be read and was not.
  static void NotePassages(const Inquiry& inquiry, const Prompt& prompt, Answer* answer) {
    const auto n_found = static_cast<int64_t>(answer->reread.size());
    if (prompt.n_passages < n_found) {
      answer->notes.push_back(StrCat(n_found - prompt.n_passages, " of ", n_found,
                                     " passages that were found did not fit into the prompt"));
    } else if (prompt.truncated) {
      answer->notes.push_back("the last passage fits into the prompt only in part");
    }
    if (inquiry.searcher == nullptr) return;
    const bool has_words = NoteTextIndex(inquiry, answer);
    if (n_found > 0) return;
    if (inquiry.reread.n_passages == 0) {
      if (inquiry.attends) return;
      answer->notes.push_back(
          "nothing that is stored was read: the model has no memory layers, and no passage joins "
          "the prompt (--reread N puts N there): the answer is the model's own");
      return;
    }
    if (!has_words) return;
    answer->notes.push_back(
        inquiry.attends
            ? "no stored passage fits the question: the answer is made from the memory alone"
            : "no stored passage shares a word with the question: the answer is the model's own");
  }

  // Says what the text index lacks, where passages were to be found by their words. False where
  // none could be.
  static bool NoteTextIndex(const Inquiry& inquiry, Answer* answer) {
    if (inquiry.reread.n_passages == 0 || inquiry.reread.by == RereadBy::kAttention) return true;
    const memory::Generation& generation = inquiry.searcher->generation();
    const memory::TextIndexFile& text_index = generation.source->text_index();
    if (const absl::Status status = text_index.status(); !status.ok()) {
      answer->notes.push_back(
          StrCat("no stored passage was found by its words, since the text index cannot be read: ",
                 status.message(), "; `fovea rebuild` makes it again"));
      return false;
    }
    const absl::StatusOr<uint64_t> next_slot = text_index.NextSlot();
    if (absl::IsDataLoss(next_slot.status())) {
      answer->notes.push_back(StrCat("which stored passages could be found by their words is not ",
                                     "known: ", next_slot.status().message(),
                                     "; `fovea rebuild` makes the text index again"));
    } else if (next_slot.ok() && *next_slot < generation.next_slot) {
      // How much that is is not told to those who may see a part of the memory.
      answer->notes.push_back(
          "what was stored last cannot be found by its words yet; the next ingest makes up for it");
    }
    return true;
  }

  compute::Device* device_;
  const SharedModel model_;
  memory::Memory* memory_;
  const PromptStyle style_;
  std::vector<int32_t> end_ids_;
  std::vector<int32_t> raw_end_ids_;
  mutable ContextPool contexts_;
};

}  // namespace

absl::StatusOr<Answer> Answerer::Ask(const std::string& question, const AskOptions& options,
                                     const StreamCallback& stream, const Progress& progress,
                                     Conversation* conversation) const {
  Request request;
  request.messages.push_back({ChatMessage::Role::kUser, question});
  request.options = options;
  request.conversation = conversation;
  request.stream = stream;
  request.progress = progress;
  return Run(request);
}

absl::StatusOr<std::unique_ptr<Answerer>> Answerer::Create(compute::Device* device,
                                                           model::Transformer* model,
                                                           memory::Memory* memory) {
  if (memory != nullptr && memory->settings().has_value()) {
    RETURN_IF_ERROR(memory->CheckModel(*model));
  }
  ASSIGN_OR_RETURN(PromptStyle style,
                   ChoosePromptStyle(model->memory_config(), model->tokenizer().spec()));
  return std::unique_ptr<Answerer>(
      std::make_unique<AnswererImpl>(device, model, memory, std::move(style)));
}

}  // namespace fovea::answer
