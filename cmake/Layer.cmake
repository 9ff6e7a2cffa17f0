include(GoogleTest)

# kvasir_tests(TARGET SOURCES... LIBS libs... [LABEL fast|slow] [TIMEOUT s])
# One gtest executable; each of its cases becomes a ctest entry with the label and timeout
# (five times as long under a sanitizer).
function(kvasir_tests target)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;LIBS" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL fast)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(KVASIR_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 5")
  endif()
  add_executable(${target} ${ARG_SOURCES})
  target_link_libraries(${target} PRIVATE ${ARG_LIBS} GTest::gtest GTest::gmock GTest::gtest_main
                        rapidcheck_gtest)
  target_compile_definitions(${target} PRIVATE KVASIR_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  gtest_discover_tests(${target} TEST_PREFIX "${target}." DISCOVERY_TIMEOUT 60
                       PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
endfunction()

# kvasir_layer(NAME [DEPS layers...] [LIBS external...])
# The folder src/NAME as one static library; every *_test.cc in it joins one test executable,
# so that no test can be forgotten.
function(kvasir_layer name)
  cmake_parse_arguments(ARG "" "" "DEPS;LIBS" ${ARGN})
  set(dir ${CMAKE_SOURCE_DIR}/src/${name})
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.cc ${dir}/*.h ${dir}/*.inc)
  file(GLOB tests CONFIGURE_DEPENDS ${dir}/*_test.cc)
  list(REMOVE_ITEM sources ${tests})
  list(TRANSFORM ARG_DEPS PREPEND kvasir_ OUTPUT_VARIABLE deps)

  if(NOT sources)
    add_library(kvasir_${name} INTERFACE)
    return()
  endif()
  add_library(kvasir_${name} STATIC ${sources})
  set_target_properties(kvasir_${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_include_directories(kvasir_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(kvasir_${name} PUBLIC ${deps} ${ARG_LIBS})
  if(EXISTS ${dir}/layer.cmake)  # per-file compile flags, e.g. one ISA per translation unit
    include(${dir}/layer.cmake)
  endif()

  if(tests)
    kvasir_tests(${name}_test SOURCES ${tests} LIBS kvasir_${name})
  endif()
endfunction()
