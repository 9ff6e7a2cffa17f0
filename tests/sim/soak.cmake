# The soak as a library and a program. In a file of its own because tests/canary/run builds nothing
# else.
set(kvasir_sim ${CMAKE_SOURCE_DIR}/tests/sim)
add_library(kvasir_soak STATIC ${kvasir_sim}/soak.cc ${kvasir_sim}/soak_clients.cc
                               ${kvasir_sim}/soak_run.cc ${kvasir_sim}/soak_setup.cc)
target_include_directories(kvasir_soak PUBLIC ${CMAKE_SOURCE_DIR}/tests)
target_link_libraries(kvasir_soak PUBLIC kvasir_engine)
add_executable(soak ${kvasir_sim}/soak_main.cc)
target_link_libraries(soak PRIVATE kvasir_soak CLI11::CLI11)
