// UTF-8 as the Unicode standard defines it: no overlong forms, no surrogates, nothing above
// U+10FFFF.
// Thread: any. Allocates: replace_broken() only.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace kvasir::serve {

// Index of the first byte of what is no character; nullopt: all of `text` is UTF-8.
std::optional<size_t> broken_utf8_at(std::string_view text);

// Requires: `text` is UTF-8.
size_t count_characters(std::string_view text);

// `text` with U+FFFD for every byte that belongs to no character.
std::string replace_broken(std::string_view text);

}  // namespace kvasir::serve
