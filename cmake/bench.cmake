# Every bench/<name>.c is a program bench_<name>.
file(GLOB WEFT_BENCHES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/bench/*.c)
foreach(source ${WEFT_BENCHES})
  get_filename_component(name ${source} NAME_WE)
  add_executable(bench_${name} ${source})
  target_include_directories(bench_${name} PRIVATE ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(bench_${name} PRIVATE weft_lib)
endforeach()
