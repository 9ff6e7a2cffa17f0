#include "sim/soak_clients.h"

#include <algorithm>
#include <utility>

namespace kvasir::sim {
namespace {

constexpr uint32_t kSystems = 3;
constexpr uint32_t kPictures = 6;  // the first one is none
constexpr uint32_t kRecentMax = 12;

}  // namespace

SoakClients::SoakClients(const SoakSetup& setup, SoakRandom& random)
    : setup_(setup), random_(random) {
  for (uint32_t i = 0; i < kSystems; ++i) systems_.push_back(words(random_.below(70)));
  for (uint32_t i = 0; i < kPictures; ++i) {
    const uint32_t tokens = setup.cache.encoder_tokens_max;
    pictures_.push_back(words(tokens == 0 || i == 0 ? 0 : random_.between(1, tokens)));
  }
  for (uint32_t i = 0; i < setup.clients; ++i) chats_.push_back(new_chat());
}

std::vector<TokenId> SoakClients::words(uint32_t count) {
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random_.below(setup_.alphabet));
  return tokens;
}

SoakClients::Chat SoakClients::new_chat() {
  return {random_.below(setup_.domains), random_.below(kPictures),
          systems_[random_.below(kSystems)]};
}

engine::Request SoakClients::next(uint32_t client) {
  Asked asked = choose_prompt(client);
  const uint32_t limit = setup_.tokens_max;
  uint32_t answer = std::min(random_.between(1, setup_.answer_max), limit - 1);
  if (asked.prompt.size() + answer > limit) asked.prompt.resize(limit - answer);
  if (recent_.size() < kRecentMax) {
    recent_.push_back(asked);
  } else {
    recent_[next_recent_++ % kRecentMax] = asked;
  }
  engine::Request request{.tokens = std::move(asked.prompt), .max_tokens = answer};
  request.encoder_tokens = pictures_[asked.picture];
  request.domain.tenant[0] = static_cast<uint8_t>(asked.domain % 2);
  request.domain.adapter[31] = static_cast<uint8_t>(asked.domain / 2);
  const auto tenants = static_cast<uint32_t>(setup_.limits.tenant_weights.size());
  if (tenants > 0) request.tenant = random_.below(tenants);
  if (random_.permille(30)) request.max_tokens = 0;
  request.score_prompt = random_.permille(20);
  draw_sampling(request);
  draw_cache_use(request);
  return request;
}

SoakClients::Asked SoakClients::choose_prompt(uint32_t client) {
  const uint32_t roll = random_.below(100);
  if (roll < 15 && !recent_.empty()) {
    Asked asked = recent_[random_.below(static_cast<uint32_t>(recent_.size()))];
    if (random_.percent(50)) edit(asked.prompt);
    return asked;
  }
  if (roll < 22) {
    return {random_.below(setup_.domains), random_.below(kPictures),
            words(random_.between(1, setup_.tokens_max - 1))};
  }
  Chat& chat = chats_[client];
  if (roll < 30) chat = chats_[random_.below(static_cast<uint32_t>(chats_.size()))];  // branches
  if (chat.text.size() + setup_.answer_max + 8 > setup_.tokens_max) chat = new_chat();
  if (random_.percent(12)) edit(chat.text);
  say_more(chat.text);
  return {chat.domain, chat.picture, chat.text};
}

// Another token somewhere, or the end cut off.
void SoakClients::edit(std::vector<TokenId>& text) {
  if (text.empty()) return;
  const uint32_t place = random_.below(static_cast<uint32_t>(text.size()));
  if (random_.percent(50)) {
    text[place] = static_cast<TokenId>(random_.below(setup_.vocab));
  } else {
    text.resize(place);
  }
  if (text.empty()) say_more(text);
}

void SoakClients::say_more(std::vector<TokenId>& text) {
  for (const TokenId token : words(random_.between(1, 20))) text.push_back(token);
}

void SoakClients::draw_sampling(engine::Request& request) {
  if (random_.percent(20)) request.choices = random_.between(2, 4);
  if (random_.percent(10)) {
    request.end_tokens.push_back(static_cast<TokenId>(random_.below(setup_.vocab)));
    if (random_.percent(50)) request.min_tokens = random_.below(8);
  }
  if (random_.percent(60)) return;
  request.sampling.temperature = 0.5F + 0.25F * static_cast<float>(random_.below(5));
  request.sampling.seed = random_.below(1000);
  if (random_.percent(30)) request.sampling.top_k = random_.between(1, setup_.vocab);
  if (random_.percent(20)) request.sampling.repetition_penalty = 1.25F;
}

void SoakClients::draw_cache_use(engine::Request& request) {
  request.reads_cache = !random_.permille(30);
  request.retention = static_cast<kv::Retention>(random_.percent(80) ? 1U : random_.below(3));
  if (random_.percent(setup_.pins_percent)) request.retain_us = random_.between(1, 20'000);
  if (random_.percent(15)) request.priority = static_cast<int32_t>(random_.below(5)) - 2;
}

void SoakClients::answered(uint32_t client, std::span<const TokenId> prompt,
                           std::span<const TokenId> answer) {
  std::vector<TokenId>& text = chats_[client].text;
  text.assign(prompt.begin(), prompt.end());
  text.insert(text.end(), answer.begin(), answer.end());
}

}  // namespace kvasir::sim
