# Embeds recipes/reproduce/*.yaml: writes a list that src/lab/embedded.c includes, a line EMBED(symbol, "name", "path") a recipe.
file(GLOB WEFT_CLAIMS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/recipes/reproduce/*.yaml)
set(lines "")
foreach(path ${WEFT_CLAIMS})
  get_filename_component(name ${path} NAME_WE)
  string(MAKE_C_IDENTIFIER wf_claim_${name} symbol)
  string(APPEND lines "EMBED(${symbol}, \"${name}\", \"${path}\")\n")
endforeach()
file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/claims.inc CONTENT "${lines}")
set_source_files_properties(${CMAKE_SOURCE_DIR}/src/lab/embedded.c PROPERTIES
  COMPILE_DEFINITIONS "WF_CLAIM_LIST=\"${CMAKE_BINARY_DIR}/claims.inc\""
  OBJECT_DEPENDS "${CMAKE_BINARY_DIR}/claims.inc;${WEFT_CLAIMS}")
