// turns: long chats side by side. Each turn sends the whole history and a new message; what was
// computed before, answers included, must not be computed again, however long the history.
//
//   chat   all users take turn t, one after the other while the caches of all stay resident
//   edit   after the last turn: an early message was changed, the rest stands as before
//   alone  the yardstick: the same prompt on a second engine that knows this history and no other
//          user, for the first users of every turn, right after their turn
//
// contract: many questions about one long document that is read once.
#include <fmt/format.h>

#include <algorithm>

#include "base/fp_env.h"
#include "bench/driver.h"
#include "bench/workloads.h"

namespace kvasir::bench {
namespace {

constexpr uint32_t kUsers = 16;
constexpr uint32_t kTurns = 20;
constexpr uint32_t kMessageTokens = 32;
constexpr uint32_t kAnswerTokens = 16;
constexpr uint32_t kEditedTurn = 5;
constexpr uint32_t kUsersAlone = 2;
constexpr uint32_t kQuestions = 10;

struct Turn {
  std::string_view name;
  uint32_t user = 0;
  uint32_t turn = 0;
  uint32_t tokens_new = 0;
};

boost::json::object turn_line(std::string_view bench, const Turn& turn, const api::Llm& llm,
                              const Answer& answer) {
  boost::json::object line = result_line(bench, turn.name, llm);
  line["user"] = turn.user;
  line["turn"] = turn.turn;
  line["ttft_ms"] = answer.ttft_ms();
  line["tokens_prompt"] = answer.stats.prompt_tokens;
  line["tokens_computed"] = answer.stats.prompt_tokens_computed;
  line["tokens_new"] = turn.tokens_new;
  return line;
}

class TurnsBench {
 public:
  TurnsBench(const BenchOptions& options, const BenchHooks& hooks)
      : hooks_(hooks),
        engine_(options.engine),
        users_(or_default(options.sequences, kUsers)),
        turns_(or_default(options.repeat, kTurns)),
        message_(or_default(options.tokens, kMessageTokens)),
        answer_(or_default(options.generate, kAnswerTokens)),
        histories_(users_) {}

  base::Status run() {
    RETURN_IF_ERROR(load());
    RETURN_IF_ERROR(warm_up());
    for (uint32_t turn = 1; turn <= turns_; ++turn) {
      show_progress(hooks_, fmt::format("turns: {} of {}", turn, turns_));
      for (uint32_t user = 0; user < users_; ++user) RETURN_IF_ERROR(take_turn(user, turn));
    }
    show_progress(hooks_, "turns: the edit");
    for (uint32_t user = 0; user < users_; ++user) RETURN_IF_ERROR(edit(user));
    return {};
  }

 private:
  base::Status load() {
    const uint64_t longest = uint64_t{turns_ + 1} * (message_ + answer_);
    if (!engine_.context) {
      engine_.context = static_cast<uint32_t>(std::min<uint64_t>(longest, UINT32_MAX));
    }
    // The edit leaves a second copy of what follows it; the warm-up is one user more.
    const uint64_t rounded = base::align_up(longest, engine_.block_tokens) + engine_.block_tokens;
    if (!engine_.kv_memory_bytes) engine_.kv_tokens = 2 * rounded * (users_ + 1);
    show_progress(hooks_, "loading the model");
    ASSIGN_OR_RETURN(llm_, api::Llm::load(engine_, {}));
    if (engine_.kv_tokens) engine_.kv_tokens = 2 * rounded;
    ASSIGN_OR_RETURN(alone_, api::Llm::load(engine_, {}));
    return {};
  }

  // Both engines touch their memory before anything is measured.
  base::Status warm_up() {
    for (api::Llm* llm : {llm_.get(), alone_.get()}) {
      engine::Request request{.tokens = message(users_, 0, 0), .max_tokens = answer_};
      RETURN_IF_ERROR(drive_one(*llm, std::move(request), hooks_));
    }
    return {};
  }

  std::vector<TokenId> message(uint32_t user, uint32_t turn, uint32_t version) const {
    const uint64_t stream = (uint64_t{user} * (turns_ + 2) + turn) * 2 + version;
    return prompt_tokens(*llm_, stream, message_);
  }

  base::Status take_turn(uint32_t user, uint32_t turn) {
    std::vector<TokenId>& history = histories_[user];
    const std::vector<TokenId> known = history;
    const std::vector<TokenId> added = message(user, turn, 0);
    history.insert(history.end(), added.begin(), added.end());
    const Turn chat{.name = "chat", .user = user, .turn = turn, .tokens_new = message_};
    ASSIGN_OR_RETURN(const Answer answer, ask(chat, *llm_, history));
    if (user < kUsersAlone) {
      RETURN_IF_ERROR(know_only(known));
      Turn alone = chat;
      alone.name = "alone";
      RETURN_IF_ERROR(ask(alone, *alone_, history));
    }
    history.insert(history.end(), answer.tokens.begin(), answer.tokens.end());
    return {};
  }

  // The history as a turn before left it: all but its last token is cached, which was sampled.
  base::Status know_only(const std::vector<TokenId>& history) {
    const base::ScopedFpEnv fp_env;
    CHECK(alone_->engine().reset_cache().done);  // nothing runs, nothing is pinned
    if (history.size() < 2) return {};
    engine::Request request{.tokens = history};
    request.tokens.pop_back();
    RETURN_IF_ERROR(drive_one(*alone_, std::move(request), hooks_));
    return {};
  }

  base::Result<Answer> ask(const Turn& turn, api::Llm& llm, const std::vector<TokenId>& prompt) {
    engine::Request request{.tokens = prompt, .max_tokens = answer_};
    ASSIGN_OR_RETURN(Answer answer, drive_one(llm, std::move(request), hooks_));
    hooks_.on_line(turn_line("turns", turn, llm, answer));
    return answer;
  }

  base::Status edit(uint32_t user) {
    const uint32_t turn = std::min(kEditedTurn, turns_);
    const size_t begin = size_t{turn - 1} * (message_ + answer_);
    std::vector<TokenId> history = histories_[user];
    std::vector<TokenId> changed = message(user, turn, 1);
    if (changed[0] == history[begin]) changed = message(users_ + 1 + user, turn, 1);
    std::ranges::copy(changed, history.begin() + static_cast<ptrdiff_t>(begin));
    history.resize(history.size() - answer_);  // asked again: its answer may change
    const Turn edited{.name = "edit",
                      .user = user,
                      .turn = turn,
                      .tokens_new = static_cast<uint32_t>(history.size() - begin)};
    RETURN_IF_ERROR(ask(edited, *llm_, history));
    return {};
  }

  const BenchHooks& hooks_;
  api::EngineOptions engine_;
  uint32_t users_;
  uint32_t turns_;
  uint32_t message_;
  uint32_t answer_;
  std::vector<std::vector<TokenId>> histories_;  // by user
  std::unique_ptr<api::Llm> llm_;
  std::unique_ptr<api::Llm> alone_;
};

}  // namespace

base::Status bench_turns(const BenchOptions& options, const BenchHooks& hooks) {
  return TurnsBench(options, hooks).run();
}

base::Status bench_contract(const BenchOptions& options, const BenchHooks& hooks) {
  const uint32_t questions = or_default(options.repeat, kQuestions);
  const uint32_t generate = or_default(options.generate, kAnswerTokens);
  api::EngineOptions engine = options.engine;
  const uint64_t beside = uint64_t{kMessageTokens} + generate;
  if (options.tokens > 0 && !engine.context) {
    engine.context = static_cast<uint32_t>(std::min<uint64_t>(options.tokens + beside, UINT32_MAX));
  }
  // Each question holds blocks of its own: what it shares a block with is copied.
  const uint64_t own = base::align_up(beside, engine.block_tokens) + 2 * engine.block_tokens;
  show_progress(hooks, "loading the model");
  if (!engine.kv_memory_bytes)
    engine.kv_tokens = engine.context.value_or(8192) + (questions + 2) * own;
  ASSIGN_OR_RETURN(const auto llm, api::Llm::load(engine, {}));
  const uint32_t limit = llm->sequence_tokens_limit();
  if (limit <= beside) {
    return base::bad_input(fmt::format("--context {}: no room for a document; raise it", limit));
  }
  const uint32_t tokens = or_default(options.tokens, static_cast<uint32_t>(limit - beside));
  const std::vector<TokenId> document = prompt_tokens(*llm, 0, tokens);
  for (uint32_t i = 0; i <= questions; ++i) {
    show_progress(hooks, fmt::format("contract: question {} of {}", i, questions));
    engine::Request request{.tokens = document, .max_tokens = generate};
    const std::vector<TokenId> question = prompt_tokens(*llm, 1 + i, kMessageTokens);
    request.tokens.insert(request.tokens.end(), question.begin(), question.end());
    const Turn turn{.name = i == 0 ? "cold" : "question",
                    .turn = i,
                    .tokens_new = i == 0 ? tokens + kMessageTokens : kMessageTokens};
    ASSIGN_OR_RETURN(const Answer answer, drive_one(*llm, std::move(request), hooks));
    hooks.on_line(turn_line("contract", turn, *llm, answer));
  }
  return {};
}

}  // namespace kvasir::bench
