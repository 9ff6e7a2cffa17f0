// The clients of a soak: chats of many turns over shared system prompts, edits, repeats, branches
// and one-off prompts.
//
// Thread: one owner. Allocates: yes.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/request.h"
#include "sim/soak_setup.h"

namespace kvasir::sim {

class SoakClients {
 public:
  SoakClients(const SoakSetup& setup, SoakRandom& random);

  // What this client asks next.
  engine::Request next(uint32_t client);
  // One answer to what it asked: its chat goes on from there.
  void answered(uint32_t client, std::span<const TokenId> prompt, std::span<const TokenId> answer);

 private:
  struct Chat {
    uint32_t domain = 0;
    uint32_t picture = 0;  // input of the encoder
    std::vector<TokenId> text;
  };
  struct Asked {
    uint32_t domain = 0;
    uint32_t picture = 0;
    std::vector<TokenId> prompt;
  };

  std::vector<TokenId> words(uint32_t count);
  Chat new_chat();
  Asked choose_prompt(uint32_t client);
  void edit(std::vector<TokenId>& text);
  void say_more(std::vector<TokenId>& text);
  void draw_sampling(engine::Request& request);
  void draw_cache_use(engine::Request& request);

  const SoakSetup& setup_;
  SoakRandom& random_;
  std::vector<std::vector<TokenId>> systems_;
  std::vector<std::vector<TokenId>> pictures_;  // all empty without an encoder
  std::vector<Chat> chats_;                     // by client
  std::vector<Asked> recent_;                   // prompts that others may repeat
  uint32_t next_recent_ = 0;
};

}  // namespace kvasir::sim
