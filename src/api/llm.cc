#include "api/llm.h"

#include <fmt/format.h>
#include <malloc.h>
#include <sys/random.h>

#include <algorithm>
#include <future>
#include <utility>

#include "api/run.h"
#include "base/checked_math.h"
#include "base/fp_env.h"
#include "base/memory.h"
#include "engine/memory_plan.h"
#include "load/read_config.h"

namespace kvasir::api {
namespace {

// Changes whenever a kernel or the order of an accumulation changes a bit of any logit.
constexpr int kNumericsVersion = 1;

// Error: the machine can not hold the weights, the cache and the activations together. Asked before
// any of them is taken, because the kernel's answer to taking too much is to end the process.
base::Status check_memory(const EnginePlan& plan, const model::ModelConfig& config,
                          uint64_t weights_bytes) {
  const std::optional<uint64_t> available = base::memory_available_bytes();
  const uint64_t activations = engine::plan_activations(config, plan.limits).total_bytes;
  const auto rest = base::checked_add(plan.cache.budget_bytes, activations);
  const auto needed = rest ? base::checked_add(*rest, weights_bytes) : std::nullopt;
  if (!available || (needed && *needed <= *available)) return {};
  return base::bad_input(fmt::format(
      "{} bytes of weights, {} of KV cache and {} of activations are more than the {} that are "
      "available; lower --kv-memory, --context, --max-sequences or --prefill-chunk",
      weights_bytes, plan.cache.budget_bytes, activations, *available));
}

// Part of what weights and activations leave; what was planned where the machine does not say.
uint64_t share_of_free(const EnginePlan& plan, const model::ModelConfig& config,
                       uint64_t weights_bytes, double share) {
  const std::optional<uint64_t> available = base::memory_available_bytes();
  if (!available) return plan.cache.budget_bytes;
  const uint64_t taken = weights_bytes + engine::plan_activations(config, plan.limits).total_bytes;
  return static_cast<uint64_t>(share *
                               static_cast<double>(*available - std::min(*available, taken)));
}

// How numbers are computed and stored. All instruction sets compute the same bits, so they are no
// part of it; the order of attention matters over bf16 only.
std::string numerics_class(const EngineOptions& options, const load::LoadedModel& model) {
  const std::string_view order = options.kv_dtype == quant::KvDtype::kBF16
                                     ? kernels::attention_order_name(options.attention_order)
                                     : "any";
  return fmt::format("{} weights={} kv={} attention={} version={}", model.config.architecture,
                     options.weights == load::WeightsMode::kF32 ? "f32" : "native",
                     quant::kv_dtype_name(options.kv_dtype), order, kNumericsVersion);
}

// What cached keys and values depend on, beside tokens and tenant: this process's secret, so that
// nobody can compute digests from outside, the model and how numbers are computed and stored.
kv::Digest cache_identity(const EngineOptions& options, const load::LoadedModel& model) {
  std::array<std::byte, 32> secret{};
  CHECK(getrandom(secret.data(), secret.size(), 0) == static_cast<ssize_t>(secret.size()));
  const std::string numerics =
      fmt::format("{} block={}", numerics_class(options, model), options.block_tokens);
  base::Sha256 hash;
  hash.update(secret);
  hash.update(std::as_bytes(std::span(model.fingerprint)));
  hash.update(std::as_bytes(std::span(numerics)));
  return hash.finish();
}

struct TextTools {
  std::optional<text::Tokenizer> tokenizer;
  std::optional<text::ChatTemplate> chat_template;
};
base::Result<TextTools> create_text_tools(load::LoadedText text) {
  TextTools tools;
  if (text.chat_template.has_value()) {
    ASSIGN_OR_RETURN(tools.chat_template,
                     text::ChatTemplate::create(*text.chat_template, text.vocab));
  }
  ASSIGN_OR_RETURN(tools.tokenizer, text::Tokenizer::create(std::move(text.vocab)));
  return tools;
}

// What reading a file with hundreds of thousands of strings leaves behind in the allocator.
void give_back_freed_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace

base::Result<std::unique_ptr<Llm>> Llm::load(const EngineOptions& options,
                                             const std::function<void(double)>& progress) {
  const base::ScopedFpEnv fp_env;
  std::unique_ptr<Llm> llm(new Llm(options));
  if (llm->pool_.threads() < options.threads) {
    return base::bad_input(fmt::format("--threads {}: the system gives only {}; use at most that",
                                       options.threads, llm->pool_.threads()));
  }
  const uint64_t start_us = llm->clock_.now_us();
  RETURN_IF_ERROR(llm->read_file(progress));
  give_back_freed_memory();
  llm->plan_.cache.identity = cache_identity(options, llm->loaded_);
  const model::TransformerParts parts{.config = &llm->loaded_.config,
                                      .weights = &llm->loaded_.weights,
                                      .kernels = options.kernels,
                                      .pool = &llm->pool_,
                                      .attention_order = options.attention_order};
  ASSIGN_OR_RETURN(llm->transformer_, engine::create_transformer(parts, llm->plan_.limits));
  ASSIGN_OR_RETURN(llm->engine_, engine::Engine::create({.model = llm->transformer_.get(),
                                                         .kernels = options.kernels,
                                                         .clock = &llm->clock_},
                                                        llm->plan_.cache, llm->plan_.limits));
  llm->load_ms_ = static_cast<double>(llm->clock_.now_us() - start_us) / 1000.0;
  return llm;
}

// Everything that is in the file. What it was read from is closed and freed when this returns.
base::Status Llm::read_file(const std::function<void(double)>& progress) {
  ASSIGN_OR_RETURN(const gguf::GgufFile file, gguf::GgufFile::open(options_.model_path));
  // The plan comes first: what can not work is refused before the weights are read.
  ASSIGN_OR_RETURN(const model::ModelConfig config, load::read_config(file));
  ASSIGN_OR_RETURN(plan_, plan_engine(options_, config));
  ASSIGN_OR_RETURN(const uint64_t weights_bytes,
                   load::weights_size_bytes(file, config, options_.weights));
  if (options_.kv_share_of_free && !options_.kv_memory_bytes) {
    plan_.cache.budget_bytes =
        share_of_free(plan_, config, weights_bytes, *options_.kv_share_of_free);
  }
  RETURN_IF_ERROR(check_memory(plan_, config, weights_bytes));
  ASSIGN_OR_RETURN(load::LoadedText text, load::load_text(file, config));
  // Beside the weights; with no thread to be had, after them.
  auto text_tools =
      std::async(std::launch::async | std::launch::deferred, create_text_tools, std::move(text));
  ASSIGN_OR_RETURN(
      loaded_,
      load::load_model(file, {.weights = options_.weights, .pool = &pool_, .progress = progress}));
  ASSIGN_OR_RETURN(TextTools tools, text_tools.get());
  tokenizer_ = std::move(tools.tokenizer);
  chat_template_ = std::move(tools.chat_template);
  return {};
}

base::Result<std::vector<Completion>> Llm::generate(std::span<const GenerateRequest> requests,
                                                    const GenerateHooks& hooks) {
  const base::ScopedFpEnv fp_env;
  Run run(*engine_, *tokenizer_, hooks);
  for (size_t i = 0; i < requests.size(); ++i) {
    if (base::Status status = run.add(requests[i]); !status) {
      if (requests.size() == 1) return std::unexpected(std::move(status).error());
      return base::bad_input(fmt::format("request {}: {}", i, status.error().message));
    }
  }
  return run.finish_all();
}

base::Result<bool> Llm::score(std::vector<TokenId> tokens,
                              const std::function<void(const ScoredRow&)>& on_row,
                              const GenerateHooks& hooks) {
  const base::ScopedFpEnv fp_env;
  const uint64_t total = tokens.size();
  engine::Request request{.tokens = std::move(tokens), .score_prompt = true};
  RETURN_IF_ERROR(engine_->check(request));
  const SequenceId id = engine_->submit(std::move(request));  // nothing else runs: there is room
  while (!engine_->idle()) {
    if (hooks.cancelled && hooks.cancelled()) {
      engine_->cancel(id);
      return false;
    }
    for (const engine::Event& event : engine_->step()) {
      if (event.kind != engine::Event::Kind::kScore) continue;
      const bool last = event.position + 1 == total;
      on_row({.position = event.position,
              .argmax = event.token,
              .next_logprob = last ? std::nullopt : std::optional(event.logprob),
              .logits = event.logits});
      if (hooks.on_prefill) hooks.on_prefill(event.position + 1, total);
    }
  }
  return true;
}

const text::ChatTemplate* Llm::chat_template() const {
  return chat_template_.has_value() ? &*chat_template_ : nullptr;
}

MemoryUse Llm::memory_use() const {
  const kv::CacheStats cache = engine_->stats().cache;
  uint64_t kv_bytes = 0;
  for (const kv::GroupStats& group : cache.groups) {
    kv_bytes += group.blocks.capacity() * group.block_bytes;
  }
  return {.weights_bytes = loaded_.weights.arena.size_bytes(),
          .kv_bytes = kv_bytes,
          .activations_bytes = engine::plan_activations(loaded_.config, plan_.limits).total_bytes};
}

uint64_t Llm::bytes_per_token() const {
  return kv::BlockLayout(plan_.cache.groups[0], plan_.cache.block_tokens).bytes_per_token();
}

std::string Llm::fingerprint() const {
  constexpr size_t kShownBytes = 6;
  const std::string numerics = numerics_class(options_, loaded_);
  base::Sha256 hash;
  hash.update(std::as_bytes(std::span(loaded_.fingerprint)));
  hash.update(std::as_bytes(std::span(numerics)));
  const base::Sha256Bytes digest = hash.finish();
  return base::to_hex(std::span(digest).first(kShownBytes));
}

std::string_view end_reason_name(EndReason reason) {
  switch (reason) {
    case EndReason::kStop:
      return "stop";
    case EndReason::kLength:
      return "length";
    case EndReason::kCancelled:
      return "cancelled";
    case EndReason::kDeadline:
      return "deadline";
    case EndReason::kModelFailed:
      return "model_failed";
  }
  return "";
}

}  // namespace kvasir::api
