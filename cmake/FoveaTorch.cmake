# LibTorch, for training: FOVEA_TRAIN=auto (built where it is found), on or off. It is the PyPI
# package torch (its folder: python3 -c "import torch; print(torch.__path__[0])") or LibTorch's
# archive, named by -DTorch_ROOT=FOLDER. Its own CMake package wants the CUDA toolkit that it was
# built with to be installed, which nothing here needs: only the libraries are looked for.
set(FOVEA_TRAIN auto CACHE STRING "Build training, with LibTorch: auto, on or off")
set_property(CACHE FOVEA_TRAIN PROPERTY STRINGS auto on off)
set(fovea_has_torch OFF)
if(NOT FOVEA_TRAIN STREQUAL "off")
  find_path(fovea_torch_root NAMES include/torch/csrc/api/include/torch/torch.h
    HINTS ${Torch_ROOT} ENV Torch_ROOT PATHS ${CMAKE_PREFIX_PATH})
  if(fovea_torch_root)
    set(fovea_torch_libraries)
    foreach(library torch torch_cpu c10 torch_cuda c10_cuda)
      find_library(fovea_torch_${library} NAMES ${library} PATHS ${fovea_torch_root}/lib NO_DEFAULT_PATH)
      if(fovea_torch_${library})
        list(APPEND fovea_torch_libraries ${fovea_torch_${library}})
      elseif(NOT library MATCHES "cuda")
        message(FATAL_ERROR "LibTorch in ${fovea_torch_root} has no lib${library}.so")
      endif()
    endforeach()
    add_library(fovea_torch INTERFACE)
    target_include_directories(fovea_torch SYSTEM INTERFACE
      ${fovea_torch_root}/include ${fovea_torch_root}/include/torch/csrc/api/include)
    # CUDA's operators register themselves when their library is loaded, so it must not be dropped.
    # As one flag: the folder also has libraries of the system's names, which CMake would warn of.
    # libtorch.so exports some of libstdc++'s functions (std::filesystem's) that do not work outside
    # of it: libstdc++ comes first.
    list(JOIN fovea_torch_libraries "," fovea_torch_libraries)
    target_link_libraries(fovea_torch INTERFACE
      "-Wl,--no-as-needed,-lstdc++,${fovea_torch_libraries},--as-needed")
    target_link_options(fovea_torch INTERFACE
      -Wl,-rpath,${fovea_torch_root}/lib -Wl,--allow-shlib-undefined)
    set(fovea_has_torch ON)
  elseif(FOVEA_TRAIN STREQUAL "on")
    message(FATAL_ERROR "FOVEA_TRAIN=on, but no LibTorch was found: "
      "name its folder with -DTorch_ROOT=FOLDER (the PyPI package torch, or LibTorch's archive)")
  endif()
endif()
if(fovea_has_torch)
  message(STATUS "Training: LibTorch in ${fovea_torch_root}")
else()
  message(STATUS "Training: not built (no LibTorch; -DTorch_ROOT=FOLDER names one)")
endif()
