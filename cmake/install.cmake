# What `cmake --install` puts in place: tool, static and shared library, header, pkg-config file.
include(GNUInstallDirs)

set(WEFT_INSTALLED weft_lib)
if(TARGET weft)
  list(APPEND WEFT_INSTALLED weft)
endif()
if(NOT WEFT_SANITIZE)
  # The shared library is the whole archive, with nothing but the public names visible.
  file(WRITE ${CMAKE_BINARY_DIR}/empty.c "")
  add_library(weft_shared SHARED ${CMAKE_BINARY_DIR}/empty.c)
  target_link_libraries(weft_shared PRIVATE $<LINK_LIBRARY:WHOLE_ARCHIVE,weft_lib>)
  target_link_options(weft_shared PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/cmake/exports.map)
  set_target_properties(weft_shared PROPERTIES OUTPUT_NAME weft VERSION ${PROJECT_VERSION} SOVERSION 0
    LINK_DEPENDS ${CMAKE_SOURCE_DIR}/cmake/exports.map)
  list(APPEND WEFT_INSTALLED weft_shared)
endif()

# Found from where the file itself lies, so that any --prefix is right.
file(RELATIVE_PATH WEFT_PC_TO_PREFIX /p/${CMAKE_INSTALL_LIBDIR}/pkgconfig /p)
string(REGEX REPLACE "/$" "" WEFT_PC_TO_PREFIX "${WEFT_PC_TO_PREFIX}")
configure_file(${CMAKE_SOURCE_DIR}/cmake/weft.pc.in ${CMAKE_BINARY_DIR}/weft.pc @ONLY)
install(TARGETS ${WEFT_INSTALLED})
install(FILES ${CMAKE_SOURCE_DIR}/include/weft.h TYPE INCLUDE)
install(FILES ${CMAKE_BINARY_DIR}/weft.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
