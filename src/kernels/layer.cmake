# The instruction-set translation units. They are optimised in every build type: their helpers are
# inline functions, and what is not inlined would become a symbol that other code could pick up. So
# would what unwinding needs; they throw nothing.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(fast "-O3;-fno-exceptions")
  set_source_files_properties(${dir}/isa_avx2.cc PROPERTIES COMPILE_OPTIONS
                              "${fast};-mavx2;-mfma;-mf16c")
  set(avx512 "${fast};-mavx2;-mfma;-mf16c;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni")
  set_source_files_properties(${dir}/isa_avx512.cc PROPERTIES COMPILE_OPTIONS "${avx512}")
  set_source_files_properties(${dir}/isa_avx512bf16.cc PROPERTIES COMPILE_OPTIONS
                              "${avx512};-mavx512bf16")
  set_source_files_properties(${dir}/isa_amx.cc PROPERTIES COMPILE_OPTIONS
                              "${avx512};-mamx-tile;-mamx-bf16")
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # A false alarm of g++ 12 inside its own AVX-512 header (GCC bug 105593).
    set_property(SOURCE ${dir}/isa_avx512.cc ${dir}/isa_avx512bf16.cc
                 ${dir}/isa_amx.cc APPEND
                 PROPERTY COMPILE_OPTIONS "-Wno-uninitialized;-Wno-maybe-uninitialized")
  endif()
  add_test(NAME kernels.isa_symbols
           COMMAND ${CMAKE_SOURCE_DIR}/scripts/check_isa_symbols $<TARGET_FILE:kvasir_kernels>)
  set_tests_properties(kernels.isa_symbols PROPERTIES LABELS fast TIMEOUT 60)
endif()
