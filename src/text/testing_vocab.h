// Small vocabularies for the tests of this folder.
// Thread: any. Allocates: yes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"
#include "text/vocab.h"

namespace kvasir::text::testing {

// The letter of the GPT-2 alphabet for each byte of `bytes`, as UTF-8.
std::vector<std::string> gpt2_letters(std::string_view bytes);

// All 256 bytes, and `words` as tokens with the merges that build each of them from the left: a
// word becomes one token exactly where the pre-tokenizer keeps it in one piece.
Vocab bpe_vocab(std::string pre_tokenizer, const std::vector<std::string>& words);

// <unk>, then the 256 byte tokens.
Vocab spm_vocab();

TokenId add_token(Vocab& vocab, const std::string& text, TokenType type, float score = 0);

// Fails the calling test if the vocabulary is refused.
Tokenizer make_tokenizer(Vocab vocab);

// What the ids stand for, readably: control tokens as their text in braces, "{<s>}hi".
std::string show(const Tokenizer& tokenizer, const std::vector<TokenId>& ids);

// The tokens one by one.
std::vector<std::string> pieces(const Tokenizer& tokenizer, std::string_view text,
                                SpecialText special = SpecialText::kPlain);

}  // namespace kvasir::text::testing
