# libFuzzer targets (clang): only the rooms that read files, every line instrumented. `ninja fuzz` builds them all.
file(GLOB WEFT_FUZZ_ROOMS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/base/*.c ${CMAKE_SOURCE_DIR}/src/file/*.c
  ${CMAKE_SOURCE_DIR}/src/lab/expr.c)
set(WEFT_FUZZ_FLAGS -Wall -Wextra -g -O1 -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
add_library(weft_fuzz STATIC EXCLUDE_FROM_ALL ${WEFT_FUZZ_ROOMS} ${CMAKE_SOURCE_DIR}/src/graph/tensor.c)
target_include_directories(weft_fuzz PUBLIC ${CMAKE_SOURCE_DIR}/src)
target_compile_options(weft_fuzz PRIVATE ${WEFT_FUZZ_FLAGS} -fsanitize=fuzzer-no-link,address,undefined)
target_link_libraries(weft_fuzz PUBLIC OpenMP::OpenMP_C PNG::PNG ZLIB::ZLIB PkgConfig::YAML PkgConfig::JANSSON m)

add_custom_target(fuzz)
file(GLOB WEFT_FUZZERS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_*.c)
foreach(source ${WEFT_FUZZERS})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} EXCLUDE_FROM_ALL ${source})
  target_compile_options(${name} PRIVATE ${WEFT_FUZZ_FLAGS} -fsanitize=fuzzer,address,undefined)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer,address,undefined)
  target_link_libraries(${name} PRIVATE weft_fuzz)
  add_dependencies(fuzz ${name})
endforeach()
