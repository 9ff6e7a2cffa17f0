// Always-on assertions for bugs in our own code. Input that enters from outside is validated at
// the edge (see base/result.h) and never reaches a CHECK.
//
// Thread: any. Allocates: never on the passing path.
#pragma once

namespace kvasir::base {

[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace kvasir::base

#define CHECK(condition)                                            \
  do {                                                              \
    if (!(condition)) [[unlikely]]                                  \
      ::kvasir::base::check_failed(#condition, __FILE__, __LINE__); \
  } while (false)
