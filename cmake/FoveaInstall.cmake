# What `cmake --install` puts where: the program, the adapters that come with it, the static
# libraries with their headers, and the CMake package that finds them.
include(CMakePackageConfigHelpers)

# What programs link.
add_library(fovea_fovea INTERFACE)
add_library(fovea::fovea ALIAS fovea_fovea)
set_target_properties(fovea_fovea PROPERTIES EXPORT_NAME fovea)
target_link_libraries(fovea_fovea INTERFACE fovea_answer)

# The command line is a program, not a library for others, and so is what only its commands use;
# training needs LibTorch, which a package cannot bring along.
get_property(fovea_installed_libraries GLOBAL PROPERTY FOVEA_LIBRARIES)
list(REMOVE_ITEM fovea_installed_libraries fovea_command_line fovea_eval fovea_serve fovea_texts fovea_train)
install(TARGETS ${fovea_installed_libraries} fovea_fovea EXPORT fovea-targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS fovea_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})

# The folders are the include path, as in the repository: #include "answer/fovea.h".
install(DIRECTORY base compute model storage index documents memory model_home answer
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/fovea
        FILES_MATCHING PATTERN "*.h")
install(DIRECTORY models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/fovea/adapters
        FILES_MATCHING PATTERN "fot_config.json" PATTERN "adapter_config.json"
        PATTERN "*.safetensors" PATTERN "README.md")
# Of a build that made nothing but the program there are none.
foreach(folder man bash-completion zsh)
  install(DIRECTORY ${CMAKE_BINARY_DIR}/manual/${folder} DESTINATION ${CMAKE_INSTALL_DATADIR} OPTIONAL)
endforeach()
install(FILES README.md LICENSE CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(fovea_package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/fovea)
install(EXPORT fovea-targets NAMESPACE fovea:: DESTINATION ${fovea_package_folder})
configure_package_config_file(cmake/fovea-config.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/fovea-config.cmake INSTALL_DESTINATION ${fovea_package_folder})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/fovea-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fovea-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/fovea-config-version.cmake
        DESTINATION ${fovea_package_folder})
