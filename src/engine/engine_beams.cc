// Beam search inside the engine: rows come in, forks go to the scheduler.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/engine.h"

namespace kvasir::engine {

base::Status Engine::check_beams(const Request& request) const {
  if (request.beams == 0) return {};
  const uint32_t most = std::min({kChoicesMax, limits_.sequences_max, parts_.model->vocab_size()});
  if (request.beams > most) {
    return base::bad_input(fmt::format("{} beams; use at most {}", request.beams, most));
  }
  const char* conflict = request.choices > 1                 ? "several choices"
                         : !request.sampling.greedy()        ? "a temperature"
                         : request.sampling.changes_logits() ? "penalties or a logit bias"
                         : request.min_tokens > 0            ? "min_tokens"
                         : request.score_prompt || request.logprobs || request.digest_logits
                             ? "logprobs or digests"
                             : nullptr;
  if (conflict != nullptr) {
    return base::bad_input(
        fmt::format("beam search can not be combined with {}; leave one out", conflict));
  }
  if (request.max_tokens == 0) return base::bad_input("beam search needs tokens to generate");
  return {};
}

uint32_t Engine::sequences_of(const Request& request) {
  return std::max(request.choices, request.beams);
}

void Engine::start_beams(sched::Slot slot, const Request& request) {
  const uint32_t width = request.beams;
  auto group = std::make_unique<BeamGroup>(
      BeamGroup{.search = BeamSearch({width, request.max_tokens, request.end_tokens})});
  group->slots.reserve(width);
  group->slots.push_back(slot);
  const std::span<const sched::Slot> forks = scheduler_->forks(slot);
  group->spare.reserve(width);
  group->spare.assign(forks.begin(), forks.end());
  group->offers.resize(group->search.offers());
  group->stays.reserve(width);
  group->has_child.reserve(width);
  running_of(slot).beams = group.get();
  beam_groups_.push_back(std::move(group));
  ended_beams_.reserve(beam_groups_.size());
}

void Engine::offer_row(sched::Slot slot, std::span<const float> logits) {
  BeamGroup& group = *running_of(slot).beams;
  const auto beam = std::ranges::find(group.slots, slot);
  CHECK(beam != group.slots.end());
  const size_t count = sampler_.top_logprobs(logits, group.offers);
  const auto offers = std::span(group.offers).first(count);
  // A model that gives no numbers ends the search: advance_beams() sees that nothing was offered.
  if (count == 0 || !(offers[0].logprob <= 0.0F)) {
    group.failed = true;
    return;
  }
  group.search.offer(static_cast<uint32_t>(beam - group.slots.begin()), offers);
}

// After all rows of the step: a search moves when each of its beams is computed.
void Engine::advance_beams() {
  for (size_t i = 0; i < beam_groups_.size();) {
    BeamGroup& group = *beam_groups_[i];
    if (!group.failed && !group.search.ready()) {
      ++i;
      continue;
    }
    if (group.search.tokens() == 0) {
      group.stats = running_of(group.slots[0]).stats;
      group.stats.first_token_us = parts_.clock->now_us();
      group.stats.promise_wait_us = scheduler_->stats_of(group.slots[0]).promise_wait_us;
    }
    if (group.failed) {
      finish_beams(group, FinishReason::kModelFailed);
      continue;
    }
    const uint32_t prompt = group.stats.prompt_tokens;
    const auto steps = group.search.advance(
        [&](uint32_t beam) { return scheduler_->tokens(group.slots[beam]).subspan(prompt); });
    if (steps.empty()) {
      finish_beams(group, FinishReason::kLength);
    } else {
      move_beams(group, steps);
      ++i;
    }
  }
}

// Beam i of the next step continues beam steps[i].parent. The first child of a parent stays in its
// slot; further children are forked into slots of beams without children.
void Engine::move_beams(BeamGroup& group, std::span<const BeamSearch::Step> steps) {
  group.stays.assign(steps.size(), std::nullopt);
  group.has_child.assign(group.slots.size(), false);
  for (size_t i = 0; i < steps.size(); ++i) {
    if (group.has_child[steps[i].parent]) continue;
    group.has_child[steps[i].parent] = true;
    group.stays[i] = group.slots[steps[i].parent];
  }
  for (size_t b = 0; b < group.slots.size(); ++b) {
    if (group.has_child[b]) continue;
    scheduler_->retire(group.slots[b]);
    group.spare.push_back(group.slots[b]);
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    if (group.stays[i]) continue;
    const sched::Slot target = group.spare.back();
    group.spare.pop_back();
    const sched::Slot parent = group.slots[steps[i].parent];
    scheduler_->fork(parent, target);
    Running& running = running_of(target);
    if (!running.used) {
      running = running_of(parent);
      running.stats.pairs_computed = 0;
      running.stats.prompt_tokens_computed = 0;
    }
    group.stays[i] = target;
  }
  group.slots.clear();
  for (size_t i = 0; i < steps.size(); ++i) {
    group.slots.push_back(*group.stays[i]);
    scheduler_->append_token(group.slots.back(), steps[i].token);
  }
}

// One answer and one end for each hypothesis; the statistics are those of the whole search.
void Engine::finish_beams(BeamGroup& group, FinishReason reason) {
  const Running first = running_of(group.slots[0]);
  const RequestStats* stats = close_beams(group);
  const std::span<const BeamSearch::Hypothesis> answers = group.search.hypotheses();
  const std::vector<TokenId>& ends = first.request->end_tokens;
  for (uint32_t i = 0; i < first.request->beams; ++i) {
    FinishReason how = reason;
    if (i < answers.size()) {
      Event& answer = emit(Event::Kind::kAnswer, first);
      answer.choice = i;
      answer.answer = answers[i].tokens;
      answer.score = answers[i].score;
      const bool stopped = std::ranges::find(ends, answers[i].tokens.back()) != ends.end();
      if (stopped) how = FinishReason::kStop;
    }
    Event& end = emit(Event::Kind::kFinished, first);
    end.choice = i;
    end.finish = how;
    end.stats = stats;
  }
}

// Ends all sequences of a search. The group lives until the next step: events point to it.
const RequestStats* Engine::close_beams(BeamGroup& group) {
  RequestStats& stats = group.stats;
  if (group.search.tokens() == 0 && !group.failed) stats = running_of(group.slots[0]).stats;
  stats.pairs_computed = 0;
  stats.prompt_tokens_computed = 0;
  for (const std::vector<sched::Slot>* slots : {&group.slots, &group.spare}) {
    for (const sched::Slot slot : *slots) {
      Running& running = running_of(slot);
      if (!running.used) continue;  // never begun: it ends with the sequence that claimed it
      stats.pairs_computed += running.stats.pairs_computed;
      stats.prompt_tokens_computed += running.stats.prompt_tokens_computed;
      stats.preemptions += scheduler_->stats_of(slot).preemptions;
      scheduler_->remove(slot);
      running = {};
    }
  }
  stats.tokens_generated = group.search.tokens();
  stats.finished_us = parts_.clock->now_us();
  if (stats.first_token_us == 0) stats.first_token_us = stats.finished_us;
  const auto at =
      std::ranges::find_if(beam_groups_, [&](const auto& other) { return other.get() == &group; });
  CHECK(at != beam_groups_.end());
  ended_beams_.push_back(std::move(*at));
  beam_groups_.erase(at);
  return &ended_beams_.back()->stats;
}

}  // namespace kvasir::engine
