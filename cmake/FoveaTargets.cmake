# fovea_library(NAME SRCS … [DEPS …] [PRIVATE_DEPS …]): one static library a folder,
# with the alias fovea::NAME. fovea_test(NAME SRCS … [DEPS …] [TIMEOUT s]): one
# GoogleTest binary whose cases CTest runs as one test.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

set(FOVEA_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize=")
if(FOVEA_SANITIZE)
  add_compile_options(-fsanitize=${FOVEA_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${FOVEA_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC finds these where its own instrumentation hides the initialisation.
    add_compile_options(-Wno-maybe-uninitialized)
  endif()
endif()

if(FOVEA_FUZZ)
  # What fuzzers watch, in every library; the targets themselves bring the fuzzer's main.
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

function(fovea_options target)
  # Of CUDA sources nvcc shows what its own front end thinks.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra>)
  # GCC 12 sees overlapping copies in std::string's own assignments (its bug 105651).
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
  endif()
  if(FOVEA_WERROR)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Werror>
                           "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Werror all-warnings>")
  endif()
  target_compile_features(${target} PUBLIC cxx_std_20)
  # The repository root is the include path; system libraries stay -isystem.
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/fovea>)
endfunction()

function(fovea_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(fovea_${name} STATIC ${ARG_SRCS})
  add_library(fovea::${name} ALIAS fovea_${name})
  set_target_properties(fovea_${name} PROPERTIES EXPORT_NAME ${name})
  fovea_options(fovea_${name})
  target_link_libraries(fovea_${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
  set_property(GLOBAL APPEND PROPERTY FOVEA_LIBRARIES fovea_${name})
endfunction()

function(fovea_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  fovea_options(${name})
  target_compile_definitions(${name} PRIVATE
    FOVEA_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
    FOVEA_BINARY_DIR="${CMAKE_BINARY_DIR}")
  # Tests are compiled once and run once: optimising them costs more than it saves.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(FOVEA_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 6")
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
endfunction()
