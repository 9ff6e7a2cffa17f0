# The instruction-set translation units. They are optimised in every build type: their helpers are
# inline functions, and what is not inlined would become a symbol that other code could pick up. So
# would what unwinding needs; they throw nothing.
file(GLOB isa_sources CONFIGURE_DEPENDS ${dir}/isa_*.cc)
set_source_files_properties(${isa_sources} PROPERTIES HEADER_FILE_ONLY ON)  # unless named here:
function(kvasir_isa name)
  set_source_files_properties(${dir}/isa_${name}.cc PROPERTIES HEADER_FILE_ONLY OFF
                              COMPILE_OPTIONS "-O3;-fno-exceptions;${ARGN}")
endfunction()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(avx2 -mavx2 -mfma -mf16c)
  set(avx512 ${avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # A false alarm of g++ 12 inside its own AVX-512 header (GCC bug 105593).
    list(APPEND avx512 -Wno-uninitialized -Wno-maybe-uninitialized)
  endif()
  kvasir_isa(avx2 ${avx2})
  kvasir_isa(avxvnni ${avx2} -mavxvnni)
  kvasir_isa(avx512 ${avx512})
  kvasir_isa(avx512bf16 ${avx512} -mavx512bf16)
  kvasir_isa(amx ${avx512} -mamx-tile -mamx-bf16)
elseif(CMAKE_SYSTEM_PROCESSOR STREQUAL "aarch64")
  kvasir_isa(neon -march=armv8.2-a+dotprod)
endif()
add_test(NAME kernels.isa_symbols
         COMMAND ${CMAKE_SOURCE_DIR}/scripts/check_isa_symbols $<TARGET_FILE:kvasir_kernels>)
set_tests_properties(kernels.isa_symbols PROPERTIES LABELS fast TIMEOUT 60)
