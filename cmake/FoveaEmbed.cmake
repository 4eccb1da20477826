# fovea_embed(OUTPUT HEADER FUNCTION FILE…): a source file, made at build time, that holds text files.
# HEADER declares FUNCTION, which takes no argument and returns a span of PageFile: the file's name,
# its text and the SHA-256 of it. A changed file makes it anew.
#
# This file is also the script that does it: cmake -DOUTPUT=… -P FoveaEmbed.cmake.

if(NOT CMAKE_SCRIPT_MODE_FILE)
  set(fovea_embed_script ${CMAKE_CURRENT_LIST_FILE})

  function(fovea_embed output header function)
    list(TRANSFORM ARGN PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/ OUTPUT_VARIABLE files)
    add_custom_command(OUTPUT ${output}
      COMMAND ${CMAKE_COMMAND} -DOUTPUT=${output} -DHEADER=${header} -DFUNCTION=${function}
              "-DFILES=${files}" -P ${fovea_embed_script}
      DEPENDS ${files} ${fovea_embed_script}
      COMMENT "Embedding ${function}'s files" VERBATIM)
  endfunction()
  return()
endif()

set(delimiter "fovea")
set(entries "")
foreach(file IN LISTS FILES)
  file(READ "${file}" text)
  string(FIND "${text}" ")${delimiter}\"" end)
  if(NOT end EQUAL -1)
    message(FATAL_ERROR "${file} has the characters that end an embedded text: )${delimiter}\"")
  endif()
  file(SHA256 "${file}" hash)
  get_filename_component(name "${file}" NAME)
  string(APPEND entries "    {\"${name}\", \"${hash}\", R\"${delimiter}(${text})${delimiter}\"},\n")
endforeach()
file(WRITE "${OUTPUT}" "// Made by cmake/FoveaEmbed.cmake.
#include \"${HEADER}\"

namespace fovea::serve {
namespace {

constexpr PageFile kFiles[] = {
${entries}};

}  // namespace

std::span<const PageFile> ${FUNCTION}() { return kFiles; }

}  // namespace fovea::serve
")
