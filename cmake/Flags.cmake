# Compiler flags shared by every target.
set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
# RelWithDebInfo is the release build: CHECKs stay on, and -g1 is enough for stack traces with line
# numbers. Sanitizer builds use -O1: they are compiled far more often than they are waited for.
set(kvasir_optimise -O3)
if(KVASIR_SANITIZE)
  set(kvasir_optimise -O1)
endif()
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "${kvasir_optimise} -g1")

# -ffp-contract=off: every fused multiply-add in the sources is explicit, so that all compilers and
# ISAs round alike.
# -Wno-missing-field-initializers: a designated initialiser may leave out members with a default.
add_compile_options(-Wall -Wextra -Wconversion -Wshadow -Wnon-virtual-dtor -Werror
                    -Wno-missing-field-initializers -ffp-contract=off -fno-math-errno)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-Wno-stringop-overflow)  # false alarms of g++ 12 inside fmt's format parser
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_compile_options(-Wthread-safety)
  find_program(KVASIR_LLD NAMES ld.lld-19 ld.lld)
  if(KVASIR_LLD)
    add_link_options(--ld-path=${KVASIR_LLD})
  endif()
endif()
if(KVASIR_SANITIZE)
  add_compile_options(-fsanitize=${KVASIR_SANITIZE} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${KVASIR_SANITIZE})
endif()
if(KVASIR_FUZZERS)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "KVASIR_FUZZERS needs clang; use the preset asan")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)  # coverage counters that guide the fuzzers
endif()
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
