#include "apps/command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "api/prompt.h"

namespace kvasir::apps {
namespace {

constexpr size_t kTextBytesMax = size_t{64} << 20;

std::atomic<int> interrupts{0};
std::atomic<bool> terminated{false};  // by SIGTERM: not forgotten by clear_interrupt()
static_assert(std::atomic<int>::is_always_lock_free);  // it is written by a signal handler

extern "C" void on_interrupt(int signal_number) {
  if (signal_number == SIGTERM) terminated.store(true);
  if (interrupts.fetch_add(1) > 0) {
    std::signal(signal_number, SIG_DFL);
    std::raise(signal_number);
  }
}

}  // namespace

void add_engine_flags(CLI::App& command, api::EngineFlags& flags) {
  command.add_option("-m,--model", flags.model, "GGUF file")->capture_default_str();
  command.add_option("--kv", flags.kv, "KV cache: none, contiguous or paged")
      ->capture_default_str();
  command.add_option("--kv-dtype", flags.kv_dtype, "keys and values: bf16, f32 or int8")
      ->capture_default_str();
  command.add_option(
      "--kv-memory", flags.kv_memory,
      "budget of the KV cache, e.g. 256MiB (default: one full context, at most 1 GiB; serve: 60 % "
      "of the free memory)");
  command.add_option("--block-tokens", flags.block_tokens, "tokens of a KV block: 16 or 32")
      ->capture_default_str();
  command
      .add_option("--prefill-chunk", flags.prefill_chunk,
                  "prompt tokens computed in one step, or all")
      ->capture_default_str();
  command.add_option("--weights", flags.weights, "native, or f32: everything in full precision")
      ->capture_default_str();
  command.add_option("--threads", flags.threads, "compute threads (default: all processors)");
  command.add_flag("--pin-threads", flags.pin_threads,
                   "keep each worker thread on a processor of its own; only where nothing else "
                   "computes");
  command
      .add_option("--isa", flags.isa,
                  "auto, reference, avx2, avxvnni, avx512, avx512bf16, amx or neon")
      ->capture_default_str();
  command
      .add_option("--attention-order", flags.attention_order,
                  "order of sums over a bf16 cache: pairs, tiles or auto: what is fastest here; "
                  "answers may differ between the two")
      ->capture_default_str();
  command.add_option("--max-sequences", flags.max_sequences, "sequences that run at once")
      ->capture_default_str();
  command.add_option("--context", flags.context,
                     "longest sequence in tokens (default: what the model was trained for)");
}

base::Result<std::unique_ptr<api::Llm>> load_llm(const api::EngineOptions& options) {
  ProgressLine progress;
  return api::Llm::load(options, [&](double fraction) {
    progress.show(fmt::format("loading {}: {:.0f} %", options.model_path, fraction * 100.0));
  });
}

base::Result<std::string> read_text(const std::string& path) {
  std::FILE* file = path == "-" ? stdin : std::fopen(path.c_str(), "rb");
  if (file == nullptr) {
    return base::bad_input(fmt::format("{}: {}; check the path", path, std::strerror(errno)));
  }
  std::string text;
  char buffer[1 << 16];
  size_t count = 0;
  while ((count = std::fread(buffer, 1, sizeof(buffer), file)) > 0 &&
         text.size() <= kTextBytesMax) {
    text.append(buffer, count);
  }
  const bool failed = std::ferror(file) != 0;
  if (file != stdin) std::fclose(file);
  if (failed) return base::bad_input(fmt::format("{}: can not be read", path));
  if (text.size() > kTextBytesMax) {
    return base::bad_input(fmt::format("{}: longer than {} bytes; give less", path, kTextBytesMax));
  }
  return text;
}

base::Result<std::vector<TokenId>> parse_token_list(const std::string& text) {
  std::vector<TokenId> tokens;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    if (*at == ',' || *at == ' ') {
      ++at;
      continue;
    }
    TokenId token = 0;
    const auto [next, error] = std::from_chars(at, end, token);
    if (error != std::errc() || (next < end && *next != ',' && *next != ' ')) {
      return base::bad_input(fmt::format(
          "--tokens: '{}' is not a token id; give numbers separated by commas",
          std::string(at, std::find_if(at, end, [](char c) { return c == ',' || c == ' '; }))));
    }
    tokens.push_back(token);
    at = next;
  }
  return tokens;
}

base::Result<std::vector<TokenId>> encode_prompt(const api::Llm& llm, const std::string& text,
                                                 bool chat) {
  if (!chat) return api::encode_prompt(llm.tokenizer(), text);
  if (llm.chat_template() == nullptr) {
    return base::bad_input("--chat: the model file has no chat template; run without --chat");
  }
  ASSIGN_OR_RETURN(const text::RenderedChat chat_prompt,
                   llm.chat_template()->render({{.role = "user", .content = text}},
                                               /*add_generation_prompt=*/true, llm.tokenizer()));
  return chat_prompt.ids;
}

void add_prompt_flags(CLI::Option_group& group, PromptFlags& flags, const std::string& noun) {
  group.add_option("-p,--prompt", flags.text, "the " + noun);
  group.add_option("-f,--file", flags.file, "a file with the " + noun + "; - is stdin");
  group.add_option("--tokens", flags.tokens, "the " + noun + " as token ids: 1,2,3");
}

base::Result<std::vector<TokenId>> read_prompt(const api::Llm& llm, const PromptFlags& flags,
                                               bool chat) {
  if (flags.tokens) return parse_token_list(*flags.tokens);
  if (!flags.file) return encode_prompt(llm, flags.text, chat);
  ASSIGN_OR_RETURN(const std::string text, read_text(*flags.file));
  return encode_prompt(llm, text, chat);
}

base::Status write_out(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    return base::runtime_error(
        fmt::format("standard output can not be written: {}", std::strerror(errno)));
  }
  return {};
}

base::Status write_json_line(const boost::json::value& value) {
  return write_out(boost::json::serialize(value) + "\n");
}

bool interrupted() {
  return interrupts.load() > 0 || terminated.load();
}

void clear_interrupt() {
  interrupts.store(0);
}

void watch_for_interrupt() {
  struct sigaction action{};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of write_out()
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of its writer
}

ProgressLine::ProgressLine() : is_terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressLine::clear() {
  if (shown_) fmt::print(stderr, "\r\033[K");
  shown_ = false;
}

void ProgressLine::show(std::string_view text) {
  if (!is_terminal_) return;
  fmt::print(stderr, "\r\033[K{}", text);
  shown_ = true;
}

api::GenerateHooks streaming_hooks(ProgressLine& progress, base::Status& written) {
  return {.on_text =
              [&](size_t, std::string_view text) {
                progress.clear();
                written = write_out(text);
              },
          .on_prefill =
              [&](uint64_t computed, uint64_t total) {
                progress.show(fmt::format("prompt: {} of {} tokens", computed, total));
              },
          .cancelled = [&] { return interrupted() || !written; }};
}

}  // namespace kvasir::apps
