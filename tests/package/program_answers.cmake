# Runs the example twice on a fresh memory: it answers with the story as its source, and the second
# run opens what the first one stored.
file(REMOVE_RECURSE ${MEMORY})
foreach(run first second)
  execute_process(
    COMMAND ${PROGRAM} ${MEMORY} ${FILE} "Who was the keeper of the lighthouse?"
    OUTPUT_VARIABLE output ERROR_VARIABLE error RESULT_VARIABLE result)
  message("${output}${error}")
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "the ${run} run ended with ${result}")
  endif()
  if(NOT output MATCHES "from The Lighthouse: ")
    message(FATAL_ERROR "the ${run} run names no source")
  endif()
endforeach()
