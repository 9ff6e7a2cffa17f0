// What a vocabulary entry stands for in running text.
// Thread: any. Allocates: the result.
#pragma once

#include <string>
#include <string_view>

#include "text/vocab.h"

namespace kvasir::text {

// kBpe: the bytes behind the letters of the GPT-2 alphabet; a letter outside it stands for itself.
// kSpm: U+2581 is a space. Byte tokens "<0xHH>" are their byte, user-defined ones their own text;
// control, unknown and unused tokens have no bytes.
std::string bytes_of_token(VocabModel model, TokenType type, std::string_view token);

}  // namespace kvasir::text
