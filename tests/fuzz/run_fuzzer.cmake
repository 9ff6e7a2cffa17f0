# Runs FUZZER for SECONDS on a copy of SEEDS in WORK.
file(REMOVE_RECURSE ${WORK})
file(COPY ${SEEDS}/ DESTINATION ${WORK})
execute_process(
  COMMAND ${FUZZER} -max_total_time=${SECONDS} -rss_limit_mb=256 -timeout=5 -print_final_stats=1
          -artifact_prefix=${WORK}- ${WORK}
  RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "the fuzzer found something; its input is beside ${WORK}")
endif()
