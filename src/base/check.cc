#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace kvasir::base {

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "kvasir: bug: CHECK(%s) failed at %s:%d\n", condition, file, line);
  std::abort();
}

}  // namespace kvasir::base
